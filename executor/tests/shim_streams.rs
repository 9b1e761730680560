//! Clients: their output, their stdin, their coming and going.

mod common;

use std::time::Duration;

use common::{ALL, Bed, OUTPUT, attach, client, demultiplex, exec_input, log_entries, read_all, soon, until};
use executor::plan::ExecInput;
use executor::shims::{LogTarget, StartRequest, Streams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Reads until the text has come, and gives everything read.
async fn read_until(stream: &mut UnixStream, text: &str) -> String {
    let mut got = vec![];
    soon(async {
        while !String::from_utf8_lossy(&got).contains(text) {
            let mut piece = [0; 4096];
            let length = stream.read(&mut piece).await.expect("readable");
            assert!(length > 0, "ended before {text:?}: {:?}", String::from_utf8_lossy(&got));
            got.extend_from_slice(&piece[..length]);
        }
    })
    .await;
    String::from_utf8_lossy(&got).into_owned()
}

#[tokio::test]
async fn stdin_goes_in_and_its_end_too() {
    let bed = Bed::new("stdin");
    let (shim, mut client) = bed.start_attached(bed.script("cat; echo done"), ALL).await;
    // Far more than pipes and sockets hold, so that both sides have to wait.
    let text: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let (mut reader, mut writer) = client.split();
    let write = async {
        writer.write_all(&text).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut bytes = vec![];
    let (_, read) = soon(async { tokio::join!(write, reader.read_to_end(&mut bytes)) }).await;
    read.unwrap();
    let (stdout, _) = demultiplex(&bytes);
    assert!(stdout[..text.len()] == text, "binary output is not intact");
    assert_eq!(&stdout[text.len()..], b"done\n");
    assert_eq!(soon(shim.wait()).await.unwrap().code, 0);
    bed.forget(&shim).await;
}

#[tokio::test]
async fn stdin_stays_open_without_stdin_once() {
    let bed = Bed::new("stays");
    let request = StartRequest { stdin_once: false, ..bed.script("cat") };
    let (_, shim) = bed.shims.start(request).await.unwrap();
    for _ in 0..3 {
        let mut client = attach(&shim, ALL).await;
        client.write_all(b"again\n").await.unwrap();
        read_until(&mut client, "again\n").await;
    }
    shim.signal(9).await.unwrap();
    soon(shim.wait()).await.unwrap();
    bed.forget(&shim).await;
}

#[tokio::test]
async fn what_a_client_sent_before_it_left_arrives() {
    let bed = Bed::new("left");
    let (shim, mut client) = bed.start_attached(bed.script("sleep 0.1; cat"), ALL).await;
    client.write_all(b"last words\n").await.unwrap();
    drop(client);
    soon(shim.wait()).await.unwrap();
    assert_eq!(log_entries(&bed.log()), [("last words\n".into(), "stdout".into())]);
    bed.forget(&shim).await;
}

#[tokio::test]
async fn without_open_stdin_it_is_dev_null() {
    let bed = Bed::new("null");
    let request = StartRequest { open_stdin: false, ..bed.script("cat; exit 5") };
    let (shim, mut client) = bed.start_attached(request, ALL).await;
    client.write_all(b"unheard").await.unwrap();
    assert!(read_all(&mut client).await.is_empty());
    assert_eq!(soon(shim.wait()).await.unwrap().code, 5);
    bed.forget(&shim).await;
}

#[tokio::test]
async fn every_client_gets_the_streams_it_wants() {
    let bed = Bed::new("wants");
    let stderr = Streams { stdin: false, stdout: false, stderr: true };
    let (shim, mut first) = bed.start_attached(bed.script("read x; echo out; echo err >&2"), OUTPUT).await;
    let mut second = attach(&shim, stderr).await;
    let mut third = attach(&shim, Streams { stdin: true, stdout: false, stderr: false }).await;
    third.write_all(b"\n").await.unwrap();
    assert_eq!(demultiplex(&read_all(&mut first).await), (b"out\n".to_vec(), b"err\n".to_vec()));
    assert_eq!(demultiplex(&read_all(&mut second).await), (vec![], b"err\n".to_vec()));
    assert!(read_all(&mut third).await.is_empty());
    bed.forget(&shim).await;
}

#[tokio::test]
async fn a_slow_client_slows_the_container_and_loses_nothing() {
    let bed = Bed::new("slow");
    let request = StartRequest { log: LogTarget::None, ..bed.script("seq 1 400000") };
    let (shim, mut client) = bed.start_attached(request, OUTPUT).await;
    let pid = bed.shim_pid(&shim);
    // Nobody reads: the container comes to a halt in its pipe, and the shim does not grow.
    let waiting = tokio::time::timeout(Duration::from_millis(300), shim.wait()).await;
    assert!(waiting.is_err(), "it ended though nobody read");
    assert!(anonymous_kb(pid) < 2000, "{} kB", anonymous_kb(pid));
    let (stdout, _) = demultiplex(&read_all(&mut client).await);
    let want: String = (1..=400_000).map(|n| format!("{n}\n")).collect();
    assert!(stdout == want.as_bytes());
    assert_eq!(soon(shim.wait()).await.unwrap().code, 0);
    bed.forget(&shim).await;
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_delay_a_kill() {
    let bed = Bed::new("stalled");
    let (shim, mut client) = bed.start_attached(bed.script("yes"), OUTPUT).await;
    let mut some = [0; 100];
    soon(client.read_exact(&mut some)).await.unwrap();
    shim.signal(9).await.unwrap();
    assert_eq!(soon(shim.wait()).await.unwrap().code, 137);
    bed.forget(&shim).await;
    // What was written is there even now that the shim is gone, in whole frames.
    let mut rest = some.to_vec();
    soon(client.read_to_end(&mut rest)).await.unwrap();
    assert!(demultiplex(&rest).0.len() > 100_000);
}

#[tokio::test]
async fn a_dead_client_holds_nobody_up() {
    let bed = Bed::new("dead");
    let request = StartRequest { log: LogTarget::None, ..bed.script("seq 1 100000; exit 4") };
    let (shim, client) = bed.start_attached(request, OUTPUT).await;
    drop(client);
    assert_eq!(soon(shim.wait()).await.unwrap().code, 4);
    bed.forget(&shim).await;
}

/// Memory of its own, which other shims' coming and going does not change.
fn anonymous_kb(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("Anonymous");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn open_fds(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count()
}

#[tokio::test]
async fn a_thousand_clients_leave_nothing_behind() {
    let bed = Bed::new("thousand");
    let request = StartRequest { stdin_once: false, ..bed.script("cat") };
    let (_, shim) = bed.shims.start(request).await.unwrap();
    let pid = bed.shim_pid(&shim);
    let visit = async |number: usize| {
        let mut client = attach(&shim, ALL).await;
        if number.is_multiple_of(3) {
            client.write_all(b"x\n").await.unwrap();
            read_until(&mut client, "x\n").await;
        }
    };
    for number in 0..50 {
        visit(number).await;
    }
    until("the clients are gone", || open_fds(pid) <= 16).await;
    let (fds, memory) = (open_fds(pid), anonymous_kb(pid));
    for number in 0..1000 {
        visit(number).await;
    }
    until("the clients are gone", || open_fds(pid) <= fds).await;
    let grown = anonymous_kb(pid).saturating_sub(memory);
    assert!(grown <= 64, "{grown} kB more");
    shim.signal(9).await.unwrap();
    soon(shim.wait()).await.unwrap();
    bed.forget(&shim).await;
}

#[tokio::test]
async fn a_terminal_has_a_size_and_is_raw_to_the_client() {
    let bed = Bed::new("tty");
    let script = "stty size; tty; read x; stty size; echo got $x; exit 6";
    let (shim, mut client) = bed.start_attached(bed.terminal(script), ALL).await;
    let text = read_until(&mut client, "/dev/pts/0").await;
    assert!(text.contains("24 80\r\n"), "{text:?}");
    shim.resize(40, 100).await.unwrap();
    client.write_all(b"word\r").await.unwrap();
    let rest = String::from_utf8(read_all(&mut client).await).unwrap();
    assert!(rest.contains("40 100\r\n") && rest.ends_with("got word\r\n"), "{rest:?}");
    assert_eq!(soon(shim.wait()).await.unwrap().code, 6);
    assert!(log_entries(&bed.log()).iter().any(|(text, stream)| text == "24 80\r\n" && stream == "stdout"));
    bed.forget(&shim).await;
}

#[tokio::test]
async fn the_terminals_interrupt_key_reaches_the_program() {
    let bed = Bed::new("ctrlc");
    let (shim, mut client) = bed
        .start_attached(bed.terminal("trap 'exit 8' INT; echo up; while :; do sleep 0.01; done"), ALL)
        .await;
    read_until(&mut client, "up").await;
    client.write_all(b"\x03").await.unwrap();
    assert_eq!(soon(shim.wait()).await.unwrap().code, 8);
    bed.forget(&shim).await;
}

#[tokio::test]
async fn resizing_without_a_terminal_is_refused() {
    let bed = Bed::new("notty");
    let (_, shim) = bed.shims.start(bed.script("sleep 1000")).await.unwrap();
    let error = shim.resize(1, 1).await.unwrap_err();
    assert!(error.to_string().contains("has no terminal"), "{error}");
    bed.forget(&shim).await;
}

#[tokio::test]
async fn exec_has_streams_of_its_own() {
    let bed = Bed::new("exec");
    let (_, shim) = bed.shims.start(bed.script("sleep 1000")).await.unwrap();
    let (theirs, mut ours) = client(ALL);
    shim.exec("a", exec_input("cat; echo err >&2; exit 3"), None, Some(theirs)).await.unwrap();
    ours.write_all(b"in").await.unwrap();
    ours.shutdown().await.unwrap();
    assert_eq!(demultiplex(&read_all(&mut ours).await), (b"in".to_vec(), b"err\n".to_vec()));
    assert_eq!(soon(shim.exec_wait("a")).await.unwrap(), 3);
    // With a terminal.
    let (theirs, mut ours) = client(ALL);
    let exec = ExecInput { terminal: true, ..exec_input("stty size; read x; stty size") };
    shim.exec("b", exec, Some((10, 20)), Some(theirs)).await.unwrap();
    read_until(&mut ours, "10 20\r\n").await;
    shim.exec_resize("b", 30, 40).await.unwrap();
    ours.write_all(b"\r").await.unwrap();
    assert!(String::from_utf8(read_all(&mut ours).await).unwrap().contains("30 40\r\n"));
    assert_eq!(soon(shim.exec_wait("b")).await.unwrap(), 0);
    // Nothing of it is in the container's log.
    assert!(log_entries(&bed.log()).is_empty());
    bed.forget(&shim).await;
}

#[tokio::test]
async fn an_exec_goes_on_without_its_client() {
    let bed = Bed::new("gone");
    let (_, shim) = bed.shims.start(bed.script("sleep 1000")).await.unwrap();
    let (theirs, mut ours) = client(OUTPUT);
    shim.exec("a", exec_input("echo up; sleep 0.1; echo more; exit 9"), None, Some(theirs)).await.unwrap();
    read_until(&mut ours, "up").await;
    drop(ours);
    assert_eq!(soon(shim.exec_wait("a")).await.unwrap(), 9);
    bed.forget(&shim).await;
}

#[tokio::test]
async fn what_an_exec_leaves_running_does_not_hold_its_client() {
    let bed = Bed::new("background");
    let (_, shim) = bed.shims.start(bed.script("sleep 1000")).await.unwrap();
    let (theirs, mut ours) = client(OUTPUT);
    shim.exec("a", exec_input("yes > /dev/null & sleep 1000 & echo x"), None, Some(theirs)).await.unwrap();
    assert_eq!(demultiplex(&read_all(&mut ours).await).0, b"x\n");
    assert_eq!(soon(shim.exec_wait("a")).await.unwrap(), 0);
    bed.forget(&shim).await;
}

#[tokio::test]
async fn a_full_disk_reaches_neither_clients_nor_container() {
    let bed = Bed::new("full");
    let log = LogTarget::JsonFile { path: "/dev/full".into(), max_size_bytes: None, max_files: 1 };
    let request = StartRequest { log, ..bed.script("read x; seq 1 1000; exit 2") };
    let (shim, mut client) = bed.start_attached(request, ALL).await;
    client.write_all(b"\n").await.unwrap();
    let want: String = (1..=1000).map(|n| format!("{n}\n")).collect();
    assert!(demultiplex(&read_all(&mut client).await).0 == want.as_bytes());
    assert_eq!(soon(shim.wait()).await.unwrap().code, 2);
    let complaints = std::fs::read_to_string(bed.directory(shim.id()).join("shim.log")).unwrap();
    assert_eq!(complaints.matches("the log loses entries").count(), 1, "{complaints}");
    bed.forget(&shim).await;
}

#[tokio::test]
async fn a_rotated_log_and_a_moved_one() {
    let bed = Bed::new("rotate");
    let log = LogTarget::JsonFile { path: bed.log(), max_size_bytes: Some(50_000), max_files: 3 };
    let (shim, mut client) =
        bed.start_attached(StartRequest { log, ..bed.script("seq 1 1500; read x; echo last") }, ALL).await;
    read_until(&mut client, "1500\n").await;
    let numbered = |number: u32| bed.dir.path().join(format!("log.json.{number}"));
    assert!(numbered(2).exists() && !numbered(3).exists());
    let mut all: Vec<_> = log_entries(&numbered(2));
    all.extend(log_entries(&numbered(1)));
    all.extend(log_entries(&bed.log()));
    let want: Vec<_> = (1501 - all.len()..=1500).map(|n| (format!("{n}\n"), "stdout".to_owned())).collect();
    assert_eq!(all, want);
    std::fs::rename(bed.log(), bed.dir.path().join("moved")).unwrap();
    shim.reopen_log().await.unwrap();
    client.write_all(b"\n").await.unwrap();
    soon(shim.wait()).await.unwrap();
    assert_eq!(log_entries(&bed.log()), [("last\n".into(), "stdout".into())]);
    bed.forget(&shim).await;
}
