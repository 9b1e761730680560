//! Builds the images of the tests, the demo and the benchmark from Debian's packages, and puts
//! them into the storage of a `docker-registry`.
//!
//! `test-images CACHE [--big]`: `busybox`, `nginx` (on a debootstrap base), `many` (twelve small
//! layers) and, for the benchmark, `big` (twelve layers of about 1 GB in all). What is there
//! already is left alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tests::image::{Builder, Format, Packing, busybox_layer};
use tests::registry::{Options, Registry};

/// One small layer each.
const MANY: [&str; 12] = [
    "base-files",
    "bash",
    "coreutils",
    "sed",
    "grep",
    "tar",
    "gzip",
    "findutils",
    "diffutils",
    "hostname",
    "util-linux",
    "perl-base",
];

/// About 1 GB unpacked: large libraries, trees of small files, and things between.
const BIG: [&[&str]; 12] = [
    &["base-files", "bash", "coreutils", "libc6", "libc-bin", "util-linux", "perl-base"],
    &["perl-modules-5.36"],
    &["python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"],
    &["git", "vim-runtime"],
    &["golang-1.19-src"],
    &["libboost1.74-dev"],
    &["libllvm14"],
    &["gcc-12", "cpp-12", "g++-12"],
    &["openjdk-17-jre-headless"],
    &["libicu-dev", "locales"],
    &["iso-codes", "adwaita-icon-theme"],
    &["postgresql-15", "mariadb-server-core"],
];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let cache = PathBuf::from(arguments.next().context("usage: test-images CACHE [--big]")?);
    let big = match arguments.next().as_deref() {
        None => false,
        Some("--big") => true,
        Some(other) => bail!("unknown argument {other}"),
    };
    std::fs::create_dir_all(&cache)?;
    let registry = Registry::over(&cache.join("registry"), &Options::default());
    once(&cache, "busybox", || {
        let image = Builder::default().layer(busybox_layer(), Packing::Gzip).build();
        registry.push(&image, "busybox:latest")?;
        let oci = Builder::new(Format::Oci).layer(busybox_layer(), Packing::Zstd).build();
        registry.push(&oci, "busybox:oci")
    })?;
    once(&cache, "nginx", || nginx(&cache, &registry))?;
    once(&cache, "many", || {
        let layers: Vec<&[&str]> = MANY.iter().map(std::slice::from_ref).collect();
        packages(&cache, &registry, "many:latest", &layers)
    })?;
    if big {
        once(&cache, "big", || packages(&cache, &registry, "big:latest", &BIG))?;
    }
    std::fs::write(cache.join("ready"), "")?;
    Ok(())
}

/// Does `work` unless an earlier run has finished it.
fn once(cache: &Path, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = cache.join(format!("{name}.done"));
    if stamp.exists() {
        return Ok(());
    }
    println!("building the image {name}");
    work().with_context(|| format!("image {name}"))?;
    std::fs::write(stamp, "")?;
    Ok(())
}

/// nginx on a minimal Debian, as two layers.
fn nginx(cache: &Path, registry: &Registry) -> Result<()> {
    let scratch = tempfile::tempdir_in(cache)?;
    let root = scratch.path().join("root");
    sh(Command::new("debootstrap")
        .args(["--variant=minbase", "--include=nginx-light", "bookworm"])
        .arg(&root)
        .arg("http://deb.debian.org/debian"))?;
    for heavy in ["var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"]
    {
        std::fs::remove_dir_all(root.join(heavy)).ok();
        std::fs::create_dir_all(root.join(heavy))?;
    }
    let site = scratch.path().join("site");
    std::fs::create_dir_all(site.join("var/www/html"))?;
    std::fs::write(site.join("var/www/html/index.html"), "<h1>ctl</h1>\n")?;
    let image = Builder::default()
        .layer(tar(&root)?, Packing::Gzip)
        .layer(tar(&site)?, Packing::Gzip)
        .set("Cmd", serde_json::json!(["nginx", "-g", "daemon off; error_log stderr notice;"]))
        .set("StopSignal", "SIGQUIT".into())
        .set("ExposedPorts", serde_json::json!({"80/tcp": {}}))
        .build();
    registry.push(&image, "nginx:latest")
}

/// An image with one layer for each group of packages, unpacked but not configured.
fn packages(cache: &Path, registry: &Registry, name: &str, layers: &[&[&str]]) -> Result<()> {
    let debs = cache.join("debs");
    std::fs::create_dir_all(&debs)?;
    let scratch = tempfile::tempdir_in(cache)?;
    let mut builder = Builder::default();
    for (number, group) in layers.iter().enumerate() {
        let root = scratch.path().join(number.to_string());
        std::fs::create_dir_all(&root)?;
        for package in *group {
            let before = deb_of(&debs, package)?;
            if before.is_none() {
                sh(Command::new("apt-get").args(["download", "-qq", package]).current_dir(&debs))?;
            }
            let deb = deb_of(&debs, package)?.with_context(|| format!("no .deb of {package}"))?;
            sh(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&root))?;
        }
        builder = builder.layer(tar(&root)?, Packing::Gzip);
    }
    registry.push(&builder.build(), name)
}

fn deb_of(debs: &Path, package: &str) -> Result<Option<PathBuf>> {
    let prefix = format!("{package}_");
    for entry in std::fs::read_dir(debs)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// The tar stream of a directory, the same for the same content.
fn tar(root: &Path) -> Result<Vec<u8>> {
    let output = Command::new("tar")
        .args(["--sort=name", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C"])
        .arg(root)
        .args(["-c", "."])
        .output()
        .context("tar")?;
    ensure!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn sh(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
