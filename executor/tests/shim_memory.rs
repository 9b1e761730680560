//! What a shim costs, as it is shipped: static and optimised.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{ALL, Bed, attach, client, exec_input, read_all, soon, until};
use tokio::io::AsyncWriteExt;

/// SPECIFICATION.md: proportional set size of a shim.
const MOST_PSS_KB: u64 = 1000;

/// The shim that `scripts/build` makes.
fn shipped_shim() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let output = Command::new(root.join("scripts/build")).arg("--shim").output().expect("scripts/build");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    root.join(target).join("ctl/bin/ctld-shim")
}

fn smaps_kb(pid: i32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let value = text.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    value.trim_matches([':', ' ']).trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn a_shim_takes_less_than_a_megabyte() {
    let bed = Bed::with_shim("memory", shipped_shim());
    let begin = Instant::now();
    let (_, shim) = bed.shims.start(bed.script("cat")).await.unwrap();
    let started = begin.elapsed();
    let pid = bed.shim_pid(&shim);
    let settled = async || {
        until("the shim has given memory back", || smaps_kb(pid, "Pss:") <= MOST_PSS_KB).await;
        smaps_kb(pid, "Pss:")
    };
    let idle = settled().await;
    // The same after work: clients, output, execs.
    let mut visitor = attach(&shim, ALL).await;
    let text = "a line of output\n".repeat(20_000);
    let (mut reader, mut writer) = visitor.split();
    let mut echoed = vec![0; text.len()];
    soon(async {
        tokio::join!(
            writer.write_all(text.as_bytes()),
            tokio::io::AsyncReadExt::read_exact(&mut reader, &mut echoed)
        )
    })
    .await
    .0
    .unwrap();
    for number in 0..20 {
        let (theirs, mut ours) = client(ALL);
        shim.exec(&number.to_string(), exec_input("echo x"), None, Some(theirs)).await.unwrap();
        drop(read_all(&mut ours).await);
        assert_eq!(soon(shim.exec_wait(&number.to_string())).await.unwrap(), 0);
    }
    let busy = settled().await;
    println!(
        "PSS {idle} kB at the start, {busy} kB after work (anonymous {} kB); started in {started:?}",
        smaps_kb(pid, "Anonymous:")
    );
    drop(visitor);
    soon(shim.wait()).await.unwrap();
    bed.forget(&shim).await;
}

/// Not a bound: prints what a container's life takes, for whoever wants to know.
#[tokio::test]
async fn times_of_a_life() {
    let bed = Bed::with_shim("times", shipped_shim());
    let mut times: Vec<[Duration; 3]> = vec![];
    for _ in 0..30 {
        let request = bed.request(&["/bin/true"]);
        let begin = Instant::now();
        let (_, shim) = bed.shims.start(request).await.unwrap();
        let started = begin.elapsed();
        assert_eq!(soon(shim.wait()).await.unwrap().code, 0);
        let ended = begin.elapsed();
        bed.forget(&shim).await;
        times.push([started, ended - started, begin.elapsed() - ended]);
    }
    for (number, what) in ["start", "wait", "forget"].iter().enumerate() {
        let mut sorted: Vec<_> = times.iter().map(|times| times[number]).collect();
        sorted.sort();
        println!("{what}: median {:?}, best {:?}", sorted[sorted.len() / 2], sorted[0]);
    }
}
