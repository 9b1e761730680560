//! A daemon that answers from a script, for tests of what `ctl` sends and shows.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// `POST /containers/create?name=x`, without the version.
    pub line: String,
    /// Headers by their names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// What is sent back.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A status, a content type and a body.
    Plain(u16, &'static str, Vec<u8>),
    /// The head at once, the body when the marker's file appears in the directory.
    Late(&'static str, Vec<u8>),
    /// 101; then the input is read to its end and sent back as standard output, framed, after `hello`.
    Echo,
}

/// JSON with a status.
pub fn json(status: u16, body: &str) -> Answer {
    Answer::Plain(status, "application/json", body.as_bytes().to_vec())
}

type Script = dyn Fn(&Request) -> Answer + Send + Sync;

/// A running fake; its socket is removed with it.
pub struct Fake {
    directory: tempfile::TempDir,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// Listens and answers by `script`.
    pub fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("s")).expect("a socket");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (script, seen): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&requests));
        let root = directory.path().to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (script, seen, root) = (Arc::clone(&script), Arc::clone(&seen), root.clone());
                std::thread::spawn(move || serve(stream, &*script, &seen, &root).ok());
            }
        });
        Self { directory, requests }
    }

    /// The lines of the requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").iter().map(|request| request.line.clone()).collect()
    }

    /// The first request whose line begins so.
    pub fn request(&self, line: &str) -> Request {
        let requests = self.requests.lock().expect("no panic");
        requests.iter().find(|request| request.line.starts_with(line)).expect("the request was sent").clone()
    }

    /// A command line of `ctl` against this fake, with a configuration of its own.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ctl"));
        command.env_clear().env("HOME", self.directory.path());
        command.env("CTL_HOST", format!("unix://{}", self.directory.path().join("s").display()));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs `ctl` to its end.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("ctl runs")
    }

    /// A directory that lives as long as the fake.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

fn serve(
    stream: UnixStream,
    script: &Script,
    seen: &Mutex<Vec<Request>>,
    root: &std::path::Path,
) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut words = first.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path =
            path.strip_prefix("/v").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(path);
        let line = format!("{method} {path}");
        let mut headers = HashMap::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        if line.contains("fromSrc=-") {
            // An upload that is not wanted: answered and closed with the body unread.
            let body = r#"{"message": "not here"}"#;
            write!(writer, "HTTP/1.1 501 X\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
            return Ok(());
        }
        let mut body = Vec::new();
        if let Some(length) = headers.get("content-length").and_then(|length| length.parse().ok()) {
            body.resize(length, 0);
            reader.read_exact(&mut body)?;
        } else if headers.contains_key("transfer-encoding") {
            body = chunked(&mut reader)?;
        }
        let request = Request { line, headers, body };
        seen.lock().expect("no panic").push(request.clone());
        match script(&request) {
            Answer::Plain(status, content_type, body) => {
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\n");
                write!(writer, "{head}Content-Length: {length}\r\nApi-Version: 1.53\r\n\r\n")?;
                writer.write_all(&body)?;
            }
            Answer::Late(marker, body) => {
                write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
                let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
                while !root.join(marker).exists() && std::time::Instant::now() < deadline {
                    std::thread::yield_now();
                }
                writer.write_all(&body)?;
            }
            Answer::Echo => {
                let kind = "application/vnd.docker.multiplexed-stream";
                let head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n";
                write!(writer, "{head}Content-Type: {kind}\r\n\r\n")?;
                let mut input = b"hello ".to_vec();
                reader.read_to_end(&mut input)?;
                frame(&mut writer, 1, &input)?;
                frame(&mut writer, 2, b"aside\n")?;
                std::fs::write(root.join("ended"), "")?;
                return Ok(());
            }
        }
    }
}

fn frame(writer: &mut UnixStream, kind: u8, payload: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    writer.write_all(&[&[kind, 0, 0, 0], &length[..], payload].concat())
}

fn chunked(reader: &mut impl std::io::BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk)?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}
