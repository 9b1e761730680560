//! A real registry (Debian's `docker-registry`) on a loopback port of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::image::Image;
use crate::process::eventually;

/// A running registry; it ends with this value.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:<port>`, as a reference names it.
    pub host: String,
    storage: PathBuf,
    child: Child,
    _dir: TempDir,
}

/// What a registry is started with.
#[derive(Debug, Default, Clone)]
pub struct Options {
    /// An htpasswd file: every request wants a user then.
    pub htpasswd: Option<PathBuf>,
    /// Certificate and key: it speaks TLS then.
    pub tls: Option<(PathBuf, PathBuf)>,
}

impl Registry {
    /// A registry with the prepared images (`busybox`, `nginx`, `many`), which
    /// `scripts/test-images` has put into the cache. They are shared: nothing may be pushed to it.
    pub fn with_images() -> Self {
        let storage = crate::cache().join("registry");
        assert!(
            crate::cache().join("ready").exists(),
            "the test images are missing: run scripts/test-images first, or scripts/test for all"
        );
        Self::over(&storage, &Options::default())
    }

    /// An empty registry with storage of its own.
    pub fn empty() -> Self {
        Self::empty_with(&Options::default())
    }

    /// An empty registry with options.
    pub fn empty_with(options: &Options) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let storage = dir.path().join("storage");
        Self::start(dir, &storage, options)
    }

    /// A registry over a storage directory.
    pub fn over(storage: &Path, options: &Options) -> Self {
        Self::start(tempfile::tempdir().expect("a temporary directory can be made"), storage, options)
    }

    fn start(dir: TempDir, storage: &Path, options: &Options) -> Self {
        // Another process may take a free port between its choice and its use: try again then.
        for _ in 0..20 {
            let port = free_port();
            let config = dir.path().join("config.yml");
            std::fs::write(&config, config_text(port, storage, options))
                .expect("the configuration can be written");
            let log = std::fs::File::create(dir.path().join("log")).expect("the log can be made");
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a file can be duplicated"))
                .stderr(log)
                .spawn()
                .expect("docker-registry can be run: scripts/test installs it");
            let up = eventually("the registry listens or has ended", || {
                if child.try_wait().expect("a child can be waited for").is_some() {
                    return Some(false);
                }
                TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(true)
            });
            // The listener may be somebody else's, if our child lost the race for the port.
            if up && child.try_wait().expect("a child can be waited for").is_none() {
                let host = format!("127.0.0.1:{port}");
                return Self { host, storage: storage.to_owned(), child, _dir: dir };
            }
        }
        panic!("no registry could be started");
    }

    /// A reference to a repository and tag of this registry.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Pushes an image under a name such as `x:latest`; plain HTTP only.
    pub fn push(&self, image: &Image, name: &str) -> Result<()> {
        let (repository, tag) = name.rsplit_once(':').context("a name has a tag")?;
        for blob in &image.blobs {
            self.put_blob(repository, &blob.digest, &blob.bytes)?;
        }
        self.put_manifest(repository, tag, &image.media_type, &image.manifest)
    }

    /// Uploads one blob.
    pub fn put_blob(&self, repository: &str, digest: &str, bytes: &[u8]) -> Result<()> {
        let (status, headers, body) =
            self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"")?;
        if status != 202 {
            bail!("upload of {digest} not begun: {status} {body}");
        }
        let location = headers
            .iter()
            .find_map(|line| line.strip_prefix("Location: ").or_else(|| line.strip_prefix("location: ")))
            .context("an upload has a location")?;
        let path = location.split_once(&self.host).map_or(location, |(_, path)| path);
        let path = format!("{path}&digest={digest}");
        let kind = [("Content-Type", "application/octet-stream")];
        let (status, _, body) = self.request("PUT", &path, &kind, bytes)?;
        if status != 201 {
            bail!("blob {digest} not taken: {status} {body}");
        }
        Ok(())
    }

    /// Uploads a manifest or index.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let (status, _, body) = self.request("PUT", &path, &[("Content-Type", media_type)], bytes)?;
        if status != 201 {
            bail!("manifest {repository}:{tag} not taken: {status} {body}");
        }
        Ok(())
    }

    /// Overwrites a blob in the registry's storage, so that it serves other bytes than it promises.
    pub fn corrupt_blob(&self, digest: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let hex = digest.trim_start_matches("sha256:");
        let path =
            self.storage.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data");
        let bytes = std::fs::read(&path).expect("the blob is in the storage");
        std::fs::write(&path, change(bytes)).expect("the blob can be written");
    }

    /// One HTTP request on a connection of its own: status, header lines, body.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(u16, Vec<String>, String)> {
        let mut stream = TcpStream::connect(&self.host)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.host);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).context("a status line")?.parse()?;
        let mut lines = Vec::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            match line.trim_end() {
                "" => break,
                header => lines.push(header.to_owned()),
            }
        }
        let mut body = Vec::new();
        reader.read_to_end(&mut body)?;
        Ok((status, lines, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Stops it, so that whoever asks it finds nobody.
    pub fn stop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port can be had");
    listener.local_addr().expect("a listener has an address").port()
}

fn config_text(port: u16, storage: &Path, options: &Options) -> String {
    let mut text = format!(
        "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n",
        storage.display()
    );
    if let Some((certificate, key)) = &options.tls {
        text.push_str(&format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            certificate.display(),
            key.display()
        ));
    }
    if let Some(file) = &options.htpasswd {
        text.push_str(&format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display()));
    }
    text
}
