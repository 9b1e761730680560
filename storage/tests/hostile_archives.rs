//! Layers that attack the unpacking: nothing outside the staging directory changes, memory and time
//! stay bounded, and ambiguous streams are refused.

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use storage::Budget;
use storage::unpack::UnpackError;
use support::*;

/// Most memory that a worker may have, in kilobytes.
const MAX_MEMORY_KB: u64 = 256 << 10;

fn message(result: Result<storage::unpack::Unpacked, UnpackError>) -> String {
    result.expect_err("the archive is refused").to_string()
}

#[test]
fn names_with_dots_are_refused() {
    for name in ["../canary/file", "a/../../canary/file", "..", "/../../canary/file", "a/.."] {
        let place = Place::new();
        let error = message(unpack(&place, &archive(&[Raw::dir("a"), Raw::file(name, "evil")])));
        assert!(error.contains("\\\"..\\\"") || error.contains("\"..\""), "{error}");
        let error = message(unpack(&Place::new(), &archive(&[Raw::hard_link("a", name)])));
        assert!(error.contains(".."), "{error}");
        place.check_canary();
    }
}

#[test]
fn links_lead_no_way_out() {
    let canary = Place::new().canary().display().to_string();
    // What the link says, and what is then done through it.
    for target in ["../../canary", "../../../../../../../..", "/", "/proc/self/root", "CANARY"] {
        for (at, mut attack) in [
            vec![Raw::file("l/file", "evil")],
            vec![Raw::dir("l/file")],
            vec![Raw::dir("l").mode(0o777).owner(1, 1)],
            vec![Raw::dir("l/").mode(0o777)],
            vec![Raw::hard_link("h", "l/file"), Raw::file("h", "evil").mode(0o777)],
            vec![Raw::hard_link("l/h", "l")],
            vec![Raw::file("l/.wh.file", "")],
            vec![Raw::file("l/.wh..wh..opq", "")],
            vec![Raw::symlink("l/file", "x"), Raw::file("l/file", "evil")],
            vec![Raw::symlink("m", "l"), Raw::symlink("n", "m/."), Raw::file("n/file", "evil")],
            vec![Raw::file("l", "evil")],
            vec![Raw::new(b'6', "l/fifo"), Raw::new(b'3', "l/device")],
        ]
        .into_iter()
        .enumerate()
        {
            let place = Place::new();
            let target = target.replace("CANARY", &place.canary().display().to_string());
            attack.insert(0, Raw::symlink("l", &target));
            // Whether it is taken or refused: it stays inside.
            let result = unpack(&place, &archive(&attack));
            place.check_canary();
            assert!(!std::path::Path::new(&canary).exists());
            if let Err(UnpackError::Local(error)) = result {
                panic!("attack {at} by {target} is called the machine's fault: {error}");
            }
        }
    }
}

#[test]
fn absolute_names_and_links_stay_inside() {
    let place = Place::new();
    let canary = place.canary().display().to_string();
    let tar = archive(&[
        Raw::symlink("l", &canary),
        Raw::dir(&canary),
        Raw::file("l/file", "inside"),
        Raw::file(&format!("{canary}/other"), "inside"),
    ]);
    unpack(&place, &tar).unwrap();
    place.check_canary();
    let inside = place.fs(&canary[1..]).join("file");
    assert_eq!(std::fs::read_to_string(inside).unwrap(), "inside");
}

#[test]
fn a_link_that_flips_stays_inside() {
    let place = Place::new();
    let mut entries = vec![Raw::dir("d")];
    for turn in 0..200 {
        entries.push(Raw::symlink("l", if turn % 2 == 0 { "../../canary" } else { "d" }));
        entries.push(Raw::file("l/file", &format!("turn {turn}")));
        entries.push(Raw::dir("l"));
        entries.push(Raw::file("l/file", &format!("again {turn}")));
    }
    // The first target does not exist inside the tree.
    let result = unpack(&place, &archive(&entries));
    place.check_canary();
    assert!(result.is_err());
    let place = Place::new();
    let tar = archive(&[vec![Raw::dir("canary")], entries].concat());
    unpack(&place, &tar).unwrap();
    place.check_canary();
    assert_eq!(std::fs::read_to_string(place.fs("canary/file")).unwrap(), "turn 198");
}

#[test]
fn whiteouts_name_names_only() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh..", ".wh.x/y", ".wh.x/.wh.y"] {
        let place = Place::new();
        let error = message(unpack(&place, &archive(&[Raw::dir("a"), Raw::file(name, "")])));
        assert!(error.contains("whiteout"), "{name}: {error}");
        place.check_canary();
    }
}

#[test]
fn overlayfs_own_attributes_are_refused() {
    for name in ["trusted.overlay.redirect", "trusted.overlay.opaque", "trusted.overlay.metacopy"] {
        let tar = archive(&[Raw::dir("a").pax(format!("SCHILY.xattr.{name}"), "/b")]);
        assert!(message(unpack(&Place::new(), &tar)).contains(name));
    }
}

#[test]
fn sizes_that_disagree_are_refused() {
    // The PAX size hides an entry from readers that go by it, or shows one to those that do not.
    let mut inner = Vec::new();
    Raw::file("hidden", "x").write(&mut inner);
    for size in ["0", "512", "1024", "5000"] {
        let mut entry = Raw::file("a", "").pax("size", size);
        entry.content = inner.clone();
        if size == "1024" {
            // They agree.
            unpack(&Place::new(), &archive(&[entry.clone()])).unwrap();
            entry.size = Some(0);
        }
        let error = message(unpack(&Place::new(), &archive(&[entry])));
        assert!(error.contains("conflicting sizes"), "{size}: {error}");
    }
}

#[test]
fn ambiguous_streams_are_refused() {
    let mut bad_sum = archive(&[Raw::file("a", "x")]);
    bad_sum[0] = b'b';
    let mut junk = archive(&[Raw::file("a", "x")]);
    let mut block: [u8; 512] = junk[..512].try_into().unwrap();
    block[124..136].copy_from_slice(b"0000000001x\0");
    seal(&mut block);
    junk[..512].copy_from_slice(&block);
    let mut lone_zero = archive(&[Raw::file("a", "x")]);
    lone_zero.truncate(1024);
    lone_zero.resize(1536, 0);
    lone_zero.extend(archive(&[Raw::file("b", "x")]));
    let mut link_with_content = Raw::hard_link("b", "a");
    link_with_content.content = b"x".to_vec();
    for (tar, word) in [
        (bad_sum, "checksum"),
        (junk, "junk"),
        (lone_zero, "zero block"),
        (archive(&[Raw::file("a", "x"), link_with_content]), "content"),
        (archive(&[Raw::file("a/", "x")]), "slash"),
        (archive(&[Raw::file("a", "x")])[..700].to_vec(), "unexpected EOF"),
        (archive(&[Raw::file("", "x")]), "empty name"),
        (archive(&[Raw::new(b'x', "x")])[..512].to_vec(), "extension header"),
        (archive(&[Raw::new(b'D', "d")]), "unsupported type"),
        (b"not a tar at all".repeat(100), "invalid tar"),
    ] {
        let error = message(unpack(&Place::new(), &tar));
        assert!(error.contains(word), "{word}: {error}");
    }
    let cut = gzip(&archive(&[Raw::file("a", &"x".repeat(100_000))]));
    let error = message(unpack_within(&Place::new(), &cut[..cut.len() - 20], &Budget::default()));
    assert!(error.contains("decompressing"), "{error}");
}

#[test]
fn budgets_are_named() {
    let small = Budget { layer_bytes: 100_000, layer_entries: 10, ..Budget::default() };
    let many: Vec<Raw> = (0..11).map(|n| Raw::dir(&format!("d{n}"))).collect();
    let error = message(unpack_within(&Place::new(), &archive(&many), &small));
    assert!(error.contains("more than 10 entries (layer_entries)"), "{error}");
    let large = gzip(&archive(&[Raw::file("a", &"x".repeat(100_001))]));
    let error = message(unpack_within(&Place::new(), &large, &small));
    assert!(error.contains("more than 100000 bytes (layer_bytes)"), "{error}");
    let sparse = Raw::file("a", "")
        .pax("GNU.sparse.major", "0")
        .pax("GNU.sparse.minor", "1")
        .pax("GNU.sparse.size", "1000000000000")
        .pax("GNU.sparse.map", "1000000000000,0");
    let error = message(unpack_within(&Place::new(), &archive(&[sparse]), &small));
    assert!(error.contains("layer_bytes"), "{error}");
    let deep = Raw::file("a", "x").pax("path", "d/".repeat(1500) + "x");
    let error = message(unpack(&Place::new(), &archive(&[deep])));
    assert!(error.contains("deeper than 1024"), "{error}");
    let mut long = Raw::new(b'x', "x");
    long.size = Some(10 << 30);
    assert!(message(unpack(&Place::new(), &archive(&[long]))).contains("over budget"));
}

/// Feeds a worker from a function and watches its memory: peak in kilobytes, and what it answered.
fn watched(place: &Place, budget: &[&str], feed: impl FnOnce(&mut dyn std::io::Write)) -> (u64, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ctld-unpack"))
        .arg(place.staging())
        .args(budget)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("worker");
    let stdin = child.stdin.take().expect("stdin");
    let mut input = Watched { stdin, status: format!("/proc/{}/status", child.id()), peak: 0, bytes: 0 };
    feed(&mut input);
    let peak = input.peak;
    drop(input);
    let mut answer = String::new();
    child.stdout.take().expect("stdout").read_to_string(&mut answer).expect("answer");
    child.wait().expect("worker");
    assert!(peak > 0, "the memory was never read");
    (peak, answer)
}

/// A worker's input that looks at the worker's memory every 64 KiB.
struct Watched {
    stdin: std::process::ChildStdin,
    status: String,
    peak: u64,
    bytes: usize,
}

impl std::io::Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes >= 64 << 10 || self.peak == 0 {
            self.bytes = 0;
            let status = std::fs::read_to_string(&self.status)?;
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let peak = peak.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
            self.peak = peak.unwrap_or(self.peak);
        }
        let count = self.stdin.write(bytes)?;
        self.bytes += count;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stdin.flush()
    }
}

#[test]
fn ten_gigabytes_of_zeros_meet_the_budget() {
    let place = Place::new();
    let (peak, answer) = watched(&place, &["200000000", "1000"], |out| {
        let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
        let mut header = Vec::new();
        let mut entry = Raw::file("zeros", "");
        entry.size = Some(150_000_000);
        entry.write(&mut header);
        drop(encoder.write_all(&header));
        let zeros = vec![0; 1 << 20];
        for _ in 0..10_240 {
            if encoder.write_all(&zeros).is_err() {
                break;
            }
        }
    });
    assert!(peak < MAX_MEMORY_KB, "{peak} kB");
    assert!(answer.contains("layer_bytes") && answer.contains("budget"), "{answer}");
}

#[test]
fn opaque_whiteouts_are_linear() {
    let mut tar = Vec::new();
    for n in 0..100_000 {
        Raw::file(&format!("d{}/.wh..wh..opq", n % 1000), "").write(&mut tar);
    }
    tar.resize(tar.len() + 1024, 0);
    let start = Instant::now();
    unpack(&Place::new(), &tar).unwrap();
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn directories_meet_the_memory_budget() {
    let place = Place::new();
    let (peak, answer) = watched(&place, &["100000000000", "10000000"], |out| {
        let parent = "d".repeat(250) + "/";
        let mut header = Vec::new();
        for n in 0..20_000 {
            header.clear();
            Raw::dir("d").pax("path", format!("{}{n}", parent.repeat(16))).write(&mut header);
            if out.write_all(&header).is_err() {
                break;
            }
        }
    });
    assert!(answer.contains("over budget: the layer's directories"), "{answer}");
    assert!(peak < MAX_MEMORY_KB, "{peak} kB");
}

#[test]
fn the_worker_sees_nothing_but_staging() {
    // While it waits for input: its root is the staging directory, and it has few capabilities.
    let place = Place::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ctld-unpack"))
        .arg(place.staging())
        .args(["1000000", "1000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let process = format!("/proc/{}", child.id());
    let deadline = Instant::now() + Duration::from_secs(20);
    let status = loop {
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        if status.contains("Seccomp:\t2") {
            break status;
        }
        assert!(Instant::now() < deadline, "no seccomp filter: {status}");
        std::thread::yield_now();
    };
    let root = std::fs::metadata(format!("{process}/root")).unwrap();
    let staging = std::fs::metadata(place.staging()).unwrap();
    assert_eq!((root.dev(), root.ino()), (staging.dev(), staging.ino()));
    let mounts = std::fs::read_to_string(format!("{process}/mounts")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split('\t').nth(1).unwrap().to_owned()
    };
    assert_eq!(field("CapEff:"), field("CapPrm:"));
    assert_eq!(u64::from_str_radix(&field("CapEff:"), 16).unwrap(), 0x0000_0000_8820_001b);
    assert_eq!(field("NoNewPrivs:"), "1");
    for namespace in ["mnt", "net", "ipc"] {
        let of = |process: &str| std::fs::read_link(format!("{process}/ns/{namespace}")).unwrap();
        assert_ne!(of(&process), of("/proc/self"), "{namespace}");
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
