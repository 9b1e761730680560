//! Signals that `ctl` receives while it is attached to a container.

use std::future::poll_fn;
use std::task::Poll;

use proto_api::client::{Client, segment};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::terminal;

/// The signals that are passed on, by the names that the API takes.
/// Not among them: SIGCHLD, SIGPIPE and SIGURG, which mean `ctl` itself; SIGWINCH, which is a resize.
const FORWARDED: &[(i32, &str)] = &[
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (18, "CONT"),
    (20, "TSTP"),
    (26, "VTALRM"),
    (27, "PROF"),
    (29, "IO"),
    (30, "PWR"),
];

/// Receives signals from the moment it is made; what arrives before `next` is not lost.
#[derive(Debug)]
pub struct Signals(Vec<(&'static str, Signal)>);

impl Signals {
    /// Takes over every signal that is passed on.
    pub fn forwarded() -> std::io::Result<Self> {
        Self::listen(FORWARDED)
    }

    /// Only what a user interrupts a command with.
    pub fn interrupts() -> std::io::Result<Self> {
        Self::listen(&[(2, "INT"), (15, "TERM"), (1, "HUP")])
    }

    fn listen(kinds: &[(i32, &'static str)]) -> std::io::Result<Self> {
        kinds
            .iter()
            .map(|(number, name)| Ok((*name, signal(SignalKind::from_raw(*number))?)))
            .collect::<std::io::Result<_>>()
            .map(Self)
    }

    /// The name of the next signal.
    pub async fn next(&mut self) -> &'static str {
        poll_fn(|context| {
            for (name, signal) in &mut self.0 {
                if let Poll::Ready(Some(())) = signal.poll_recv(context) {
                    return Poll::Ready(*name);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Passes signals on to a container for as long as the future is polled.
pub async fn forward(client: Client, container: String, mut signals: Signals) -> ! {
    loop {
        let name = signals.next().await;
        let request = client.post(format!("/containers/{}/kill", segment(&container))).query("signal", name);
        // A container that has ended meanwhile cannot be signalled any more: not worth a word.
        request.done().await.ok();
    }
}

/// Keeps the size of a terminal (of a container or of an exec, by `path`) that of ours.
pub async fn follow_window(client: Client, path: String) -> ! {
    let mut changes = signal(SignalKind::window_change()).ok();
    loop {
        if let Some((rows, columns)) = terminal::size() {
            let request = client.post(&path).query("h", rows.to_string()).query("w", columns.to_string());
            // The process may not have started yet, or may be gone.
            request.done().await.ok();
        }
        match &mut changes {
            Some(changes) => {
                changes.recv().await;
            }
            None => std::future::pending::<()>().await,
        }
    }
}
