//! The streams between our standard streams and a process in a container.

use std::io;

use bytes::{Bytes, BytesMut};
use proto_api::client::{Hijacked, Response};
use proto_api::framing::{Demux, StreamKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Stderr, Stdout};
use tokio::net::unix::OwnedWriteHalf;
use tokio::task::JoinHandle;

use crate::failure::{Outcome, fail};
use crate::terminal;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The process closed its output.
    Output,
    /// The user typed the detach keys.
    Detached,
}

/// What a session connects.
#[derive(Debug, Clone)]
pub struct Wiring {
    /// Whether the process has a terminal: its output is one unframed stream.
    pub tty: bool,
    /// Whether our standard input is passed on.
    pub stdin: bool,
    /// The keys that detach; only looked for with a terminal.
    pub detach_keys: Vec<u8>,
}

/// Copies until the process closes its output or the user detaches.
pub async fn run(stream: Hijacked, wiring: &Wiring) -> Outcome<Ended> {
    let Hijacked { mut reader, writer, .. } = stream;
    let raw = wiring.tty && wiring.stdin && terminal::stdin_is_terminal();
    if raw {
        terminal::make_raw()?;
    }
    let mut input = wiring.stdin.then(|| {
        let keys = if wiring.tty { wiring.detach_keys.clone() } else { Vec::new() };
        tokio::spawn(send_input(writer, keys))
    });
    let mut sink = Sink::new(wiring.tty);
    let mut buffer = BytesMut::new();
    let ended = loop {
        tokio::select! {
            read = reader.read(&mut buffer) => match read {
                Ok(0) => break Ok(Ended::Output),
                Ok(_) => sink.write(buffer.split().freeze()).await?,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break Ok(Ended::Output),
                Err(error) => break Err(error),
            },
            detached = joined(&mut input) => {
                input = None;
                if detached {
                    break Ok(Ended::Detached);
                }
            }
        }
    };
    if let Some(input) = input {
        input.abort();
    }
    if raw {
        terminal::restore();
    }
    Ok(ended?)
}

async fn joined(input: &mut Option<JoinHandle<bool>>) -> bool {
    match input {
        Some(handle) => handle.await.unwrap_or(false),
        None => std::future::pending().await,
    }
}

/// Copies standard input until its end, which closes the process' input. True where the user detached.
async fn send_input(mut writer: OwnedWriteHalf, detach_keys: Vec<u8>) -> bool {
    let mut stdin = tokio::io::stdin();
    let mut detach = DetachKeys::new(detach_keys);
    let mut buffer = BytesMut::with_capacity(32 << 10);
    loop {
        buffer.clear();
        buffer.reserve(32 << 10);
        match stdin.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let (pass, detached) = detach.filter(&buffer);
        // A process that does not read its input any more is no error: its output tells the rest.
        if writer.write_all(&pass).await.is_err() {
            break;
        }
        if detached {
            return true;
        }
    }
    writer.shutdown().await.ok();
    false
}

/// Finds the detach keys in what is typed, and holds back a beginning of them.
#[derive(Debug)]
struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// What is to be passed on, and whether the keys were completed.
    fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (pass, true);
                }
                continue;
            }
            pass.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.first() == Some(byte));
            if self.matched == 0 {
                pass.push(*byte);
            }
        }
        (pass, false)
    }
}

/// Ctrl-p, ctrl-q.
pub fn default_detach_keys() -> Vec<u8> {
    vec![16, 17]
}

/// Parses `--detach-keys`: `ctrl-p,ctrl-q`, or letters.
pub fn detach_keys(text: &str) -> Outcome<Vec<u8>> {
    text.split(',').map(|key| key_code(key).ok_or_else(|| bad_key(key, text))).collect()
}

fn bad_key(key: &str, text: &str) -> crate::failure::Failure {
    fail(format!("invalid detach keys ({text}): Unknown character: '{key}'"))
}

fn key_code(key: &str) -> Option<u8> {
    match key.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([letter @ b'a'..=b'z']) => Some(letter - b'a' + 1),
        Some([b'@']) => Some(0),
        Some([sign @ (b'[' | b'\\' | b']' | b'^' | b'_')]) => Some(sign - b'[' + 27),
        Some(_) => None,
        None => match key.as_bytes() {
            [byte] => Some(*byte),
            _ => None,
        },
    }
}

/// Where output goes: unframed to standard output, or framed to both.
#[derive(Debug)]
pub struct Sink {
    demux: Option<Demux>,
    stdout: Stdout,
    stderr: Stderr,
}

impl Sink {
    /// A sink for a process with (`tty`) or without a terminal.
    pub fn new(tty: bool) -> Self {
        Self { demux: (!tty).then(Demux::default), stdout: tokio::io::stdout(), stderr: tokio::io::stderr() }
    }

    /// Writes a piece of the stream through.
    pub async fn write(&mut self, piece: Bytes) -> Outcome<()> {
        let Some(demux) = &mut self.demux else {
            self.stdout.write_all(&piece).await?;
            self.stdout.flush().await?;
            return Ok(());
        };
        demux.push(&piece);
        let (mut out, mut err) = (false, false);
        while let Some((kind, payload)) = demux.next_frame().map_err(fail)? {
            match kind {
                StreamKind::Stdout | StreamKind::Stdin => {
                    if err {
                        self.stderr.flush().await?;
                        err = false;
                    }
                    self.stdout.write_all(&payload).await?;
                    out = true;
                }
                StreamKind::Stderr => {
                    if out {
                        self.stdout.flush().await?;
                        out = false;
                    }
                    self.stderr.write_all(&payload).await?;
                    err = true;
                }
                StreamKind::SystemError => {
                    let text = String::from_utf8_lossy(&payload).into_owned();
                    return Err(fail(format!("error from daemon in stream: {text}")));
                }
            }
        }
        if out {
            self.stdout.flush().await?;
        }
        if err {
            self.stderr.flush().await?;
        }
        Ok(())
    }
}

/// Copies the body of an answer such as that of `logs`.
pub async fn copy_body(mut response: Response, tty: bool) -> Outcome<()> {
    let mut sink = Sink::new(tty);
    while let Some(chunk) = response.chunk().await? {
        sink.write(chunk).await?;
    }
    Ok(())
}

/// Whether a stream is unframed, by its content type; older daemons do not say.
pub fn is_raw(content_type: Option<&str>) -> Option<bool> {
    match content_type? {
        "application/vnd.docker.multiplexed-stream" => Some(false),
        "application/vnd.docker.raw-stream" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_parsed() {
        assert_eq!(detach_keys("ctrl-p,ctrl-q").unwrap(), [16, 17]);
        assert_eq!(detach_keys("a,ctrl-[,ctrl-_").unwrap(), [b'a', 27, 31]);
        assert!(detach_keys("ctrl-P").is_err());
        assert!(detach_keys("ab").is_err());
    }

    #[test]
    fn detach_keys_are_found_across_reads_and_otherwise_passed_on() {
        let mut keys = DetachKeys::new(vec![16, 17]);
        assert_eq!(keys.filter(b"ls\x10"), (b"ls".to_vec(), false));
        assert_eq!(keys.filter(b"x\x10\x10"), (b"\x10x\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11after"), (Vec::new(), true));
        let mut none = DetachKeys::new(Vec::new());
        assert_eq!(none.filter(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
