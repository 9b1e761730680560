//! Reading logs in the json-file format: the current file and the rotated ones before it.
//!
//! ```text
//! <id>-json.log.2   <id>-json.log.1   <id>-json.log      (oldest to newest)
//! ```
//!
//! Files are read in pieces in blocking tasks. A follower sleeps on inotify and on the container's
//! state; it ends when the container does not run and everything was read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use proto_api::framing::{StreamKind, frame};
use serde::Deserialize;
use tokio::sync::watch;

use super::log_file::Reader;
use super::log_watch::Watch;
use super::registry::{Handle, View};
use super::{Error, Inner, LogOptions, Logs, log_target};

/// Bytes of output in one piece of the stream.
const PIECE: usize = 64 << 10;

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    time: DateTime<Utc>,
}

/// Turns log lines into what goes over the wire.
struct Formatter {
    options: LogOptions,
    tty: bool,
    /// Whether the last piece of stdout, of stderr, had no final newline.
    open: [bool; 2],
}

impl Formatter {
    /// Appends a line's output. `false` where `until` has been passed.
    fn push(&mut self, raw: &[u8], out: &mut BytesMut) -> bool {
        // A line that a crash or somebody else has broken is left out.
        let Ok(line) = serde_json::from_slice::<Line>(raw) else {
            return true;
        };
        let (kind, index, wanted) = match line.stream.as_str() {
            "stderr" => (StreamKind::Stderr, 1, self.options.stderr),
            _ => (StreamKind::Stdout, 0, self.options.stdout),
        };
        let time = SystemTime::from(line.time);
        if self.options.until.is_some_and(|until| time > until) {
            return false;
        }
        if !wanted || self.options.since.is_some_and(|since| time < since) {
            return true;
        }
        let continued = std::mem::replace(&mut self.open[index], !line.log.ends_with('\n'));
        let mut text = String::with_capacity(line.log.len() + 40);
        if self.options.timestamps && !continued {
            text.push_str(&line.time.to_rfc3339_opts(SecondsFormat::Nanos, true));
            text.push(' ');
        }
        if self.options.details && !continued {
            text.push(' ');
        }
        text.push_str(&line.log);
        match self.tty {
            true => out.extend_from_slice(text.as_bytes()),
            false => out.extend_from_slice(&frame(kind, text.as_bytes())),
        }
        true
    }
}

struct Source {
    reader: Option<Reader>,
    formatter: Formatter,
    finished: bool,
}

impl Source {
    /// The next piece of output; empty where the end of the log was reached. Blocks.
    fn piece(&mut self) -> Result<Bytes, Error> {
        let mut out = BytesMut::new();
        let Some(reader) = &mut self.reader else {
            self.finished = true;
            return Ok(Bytes::new());
        };
        while out.len() < PIECE && !self.finished {
            match reader.line().map_err(Error::io("read the log"))? {
                Some(raw) => self.finished = !self.formatter.push(raw, &mut out),
                None => break,
            }
        }
        Ok(out.freeze())
    }
}

impl Inner {
    /// See [`super::Engine::logs`].
    pub(super) async fn logs(&self, handle: Handle, options: LogOptions) -> Result<Logs, Error> {
        if !options.stdout && !options.stderr {
            return Err(Error::Invalid("Bad parameters: you must choose at least one stream".into()));
        }
        let view = handle.now();
        if !log_target::readable(&view.record) {
            return Err(Error::Unsupported(
                "reading logs: configured logging driver does not support reading; it".into(),
            ));
        }
        let path = log_target::path(&self.store.container_dir(&view.id), &view.id);
        let tty = view.record.tty();
        let follow = options.follow;
        let watch = match follow {
            true => Some(Watch::new(&path).map_err(Error::io("watch the log"))?),
            false => None,
        };
        let tail = options.tail;
        let reader = blocking(move || Reader::open(&path, tail).map_err(Error::io("open the log"))).await?;
        let formatter = Formatter { options, tty, open: [false; 2] };
        let source = Source { reader: Some(reader), formatter, finished: false };
        Ok(Logs { tty, stream: stream(source, watch, handle.view) })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(error.to_string()))?
}

fn stream(
    source: Source,
    watch: Option<Watch>,
    view: watch::Receiver<Arc<View>>,
) -> BoxStream<'static, Result<Bytes, Error>> {
    let until = source.formatter.options.until;
    let start = Some((source, watch, view));
    futures_util::stream::unfold(start, move |state| async move {
        let (mut source, mut watch, mut view) = state?;
        loop {
            // Asked before reading: what was written before the end is then surely read.
            let live = view.borrow_and_update().state.is_live();
            let read = blocking(move || {
                let piece = source.piece()?;
                Ok((source, piece))
            });
            let piece;
            (source, piece) = match read.await {
                Ok(read) => read,
                Err(error) => return Some((Err(error), None)),
            };
            if !piece.is_empty() {
                return Some((Ok(piece), Some((source, watch, view))));
            }
            let over = until.is_some_and(|until| SystemTime::now() > until);
            if source.finished || over || !live {
                return None;
            }
            let watch = watch.as_mut()?;
            let deadline = async {
                match until {
                    Some(until) => {
                        let left = until.duration_since(SystemTime::now()).unwrap_or_default();
                        tokio::time::sleep(left + Duration::from_millis(1)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = watch.changed() => {}
                // The sender is gone only when the container was removed.
                changed = view.changed() => if changed.is_err() { return None },
                () = deadline => {}
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(options: LogOptions, lines: &[&str]) -> String {
        let mut formatter = Formatter { options, tty: true, open: [false; 2] };
        let mut out = BytesMut::new();
        for line in lines {
            if !formatter.push(line.as_bytes(), &mut out) {
                break;
            }
        }
        String::from_utf8(out.to_vec()).unwrap()
    }

    const LINES: [&str; 4] = [
        r#"{"log":"par","stream":"stdout","time":"2026-01-01T00:00:00.5Z"}"#,
        r#"{"log":"tial\n","stream":"stdout","time":"2026-01-01T00:00:01Z"}"#,
        "junk",
        r#"{"log":"err\n","stream":"stderr","time":"2026-01-01T00:00:02.000000001Z"}"#,
    ];

    #[test]
    fn timestamps_have_nine_digits_and_come_once_a_line() {
        let options = LogOptions { stdout: true, stderr: true, timestamps: true, ..LogOptions::default() };
        let text = format(options, &LINES);
        assert_eq!(text, "2026-01-01T00:00:00.500000000Z partial\n2026-01-01T00:00:02.000000001Z err\n");
    }

    #[test]
    fn streams_and_times_are_chosen() {
        let only_err = LogOptions { stderr: true, ..LogOptions::default() };
        assert_eq!(format(only_err, &LINES), "err\n");
        let at: SystemTime = DateTime::parse_from_rfc3339("2026-01-01T00:00:01Z").unwrap().to_utc().into();
        let both = LogOptions { stdout: true, stderr: true, ..LogOptions::default() };
        assert_eq!(format(LogOptions { since: Some(at), ..both.clone() }, &LINES), "tial\nerr\n");
        assert_eq!(format(LogOptions { until: Some(at), ..both }, &LINES), "partial\n");
    }
}
