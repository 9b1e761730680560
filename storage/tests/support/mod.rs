//! Helpers of the unpack tests: archives by hand, a worker, a look at the result.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::Digest as _;
use storage::Budget;
use storage::layer_tar::LayerTar;
use storage::unpack::{LayerUnpacker, UnpackError, Unpacked};

/// A temporary directory with `staging` and a canary beside it.
pub struct Place {
    pub directory: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(directory.path().join("staging")).expect("staging");
        let canary = directory.path().join("canary");
        std::fs::create_dir(&canary).expect("canary");
        std::fs::write(canary.join("file"), "alive").expect("canary file");
        Self { directory }
    }

    pub fn staging(&self) -> PathBuf {
        self.directory.path().join("staging")
    }

    pub fn fs(&self, path: &str) -> PathBuf {
        self.staging().join("fs").join(path)
    }

    pub fn canary(&self) -> PathBuf {
        self.directory.path().join("canary")
    }

    /// Fails where the canary is not as it was.
    pub fn check_canary(&self) {
        use std::os::unix::fs::MetadataExt as _;
        let names: Vec<_> = std::fs::read_dir(self.canary())
            .expect("canary")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(names, ["file"], "the canary directory changed");
        let file = self.canary().join("file");
        assert_eq!(std::fs::read_to_string(&file).expect("canary file"), "alive");
        let metadata = std::fs::metadata(&file).expect("canary file");
        assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o644, 1), "the canary file changed");
        let mut beside: Vec<_> = std::fs::read_dir(self.directory.path())
            .expect("place")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        beside.sort();
        assert_eq!(beside, ["canary", "staging"], "something was made beside staging");
    }
}

pub fn unpack_within(place: &Place, blob: &[u8], budget: &Budget) -> Result<Unpacked, UnpackError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let worker = Path::new(env!("CARGO_BIN_EXE_ctld-unpack"));
        let mut unpacker = LayerUnpacker::start(worker, &place.staging(), budget)?;
        for chunk in blob.chunks(50_000) {
            unpacker.write(chunk).await?;
        }
        unpacker.finish().await
    })
}

pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

/// Unpacks a plain tar and makes it again: every test is a round trip.
pub fn unpack(place: &Place, tar: &[u8]) -> Result<Unpacked, UnpackError> {
    let unpacked = unpack_within(place, tar, &Budget::default())?;
    check_round_trip(place, tar, &unpacked);
    Ok(unpacked)
}

pub fn check_round_trip(place: &Place, tar: &[u8], unpacked: &Unpacked) {
    assert_eq!(unpacked.diff_id, sha256(tar));
    let mut again = Vec::new();
    let mut layer = LayerTar::open(&place.staging()).expect("layer");
    std::io::copy(&mut layer, &mut again).expect("the tar comes back");
    assert!(again == tar, "the tar came back changed: {} bytes of {}", again.len(), tar.len());
    let mut names: Vec<_> = std::fs::read_dir(place.staging())
        .expect("staging")
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["fs", "tar.zst"]);
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}

/// An entry, written header by header.
#[derive(Clone)]
pub struct Raw {
    pub name: Vec<u8>,
    pub kind: u8,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    pub device: (u32, u32),
    pub pax: Vec<(Vec<u8>, Vec<u8>)>,
    pub content: Vec<u8>,
    /// What the header says; the content's length by default.
    pub size: Option<u64>,
}

impl Raw {
    pub fn new(kind: u8, name: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            kind,
            link: vec![],
            mode: if kind == b'5' { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            mtime: 1_700_000_000,
            device: (0, 0),
            pax: vec![],
            content: vec![],
            size: None,
        }
    }

    pub fn file(name: &str, content: &str) -> Self {
        Self { content: content.into(), ..Self::new(b'0', name) }
    }

    pub fn dir(name: &str) -> Self {
        Self::new(b'5', name)
    }

    pub fn symlink(name: &str, target: &str) -> Self {
        Self { link: target.into(), ..Self::new(b'2', name) }
    }

    pub fn hard_link(name: &str, target: &str) -> Self {
        Self { link: target.into(), ..Self::new(b'1', name) }
    }

    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub fn owner(self, uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..self }
    }

    pub fn pax(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        if !self.pax.is_empty() {
            let mut content = Vec::new();
            for (key, value) in &self.pax {
                content.extend(record(key, value));
            }
            Self { content, ..Self::new(b'x', "PaxHeaders/x") }.write(out);
        }
        let mut block = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, format!("{:07o}", self.uid).as_bytes());
        put(116, format!("{:07o}", self.gid).as_bytes());
        put(124, format!("{:011o}", self.size.unwrap_or(self.content.len() as u64)).as_bytes());
        put(136, format!("{:011o}", self.mtime).as_bytes());
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &self.link);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", self.device.0).as_bytes());
        put(337, format!("{:07o}", self.device.1).as_bytes());
        seal(&mut block);
        out.extend_from_slice(&block);
        out.extend_from_slice(&self.content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
}

pub fn seal(block: &mut [u8; 512]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

pub fn archive(entries: &[Raw]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        entry.write(&mut out);
    }
    out.resize(out.len() + 1024, 0);
    out
}
