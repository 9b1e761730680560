//! Listening sockets and the connections on them.
//!
//! Each connection is an HTTP/1.1 connection of hyper with half-close allowed, since Docker's clients
//! close their writing side of a hijacked connection and go on reading. Because of that hyper does
//! not notice by itself that a client is gone while nothing is written; a second registration of the
//! socket waits for the hang-up and cancels [`Gone`], which ends streams but never a mutation.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{ConfigError, Listen};

/// Cancelled when the client of a request has closed its connection. An extension of each request.
#[derive(Debug, Clone)]
pub struct Gone(pub CancellationToken);

/// How long open connections may take to end after a request to shut down.
const GRACE: Duration = Duration::from_secs(5);
/// How long nobody has to have connected until memory is given back.
const QUIET: Duration = Duration::from_secs(5);
/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// What answers requests.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request. Never fails: failures are answers.
    fn handle(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

/// A socket that is listened on; its file is removed on drop where it is ours.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    /// Path and inode of the file that we made.
    ours: Option<(PathBuf, u64)>,
}

impl Listener {
    /// Binds one of the configured places. Has to be called inside the runtime.
    pub fn bind(listen: &Listen, group: Option<&str>) -> Result<Vec<Self>, ConfigError> {
        match listen {
            Listen::Unix(path) => bind_unix(path, group).map(|listener| vec![listener]),
            Listen::Activated => {
                let listeners = Self::activated()?;
                if listeners.is_empty() {
                    return Err(ConfigError::Value("host fd://: no sockets were passed to us".into()));
                }
                Ok(listeners)
            }
        }
    }

    /// The sockets that the service manager passed (`LISTEN_FDS`); empty where there are none.
    pub fn activated() -> Result<Vec<Self>, ConfigError> {
        let wrong = |error: io::Error| ConfigError::Value(format!("socket activation: {error}"));
        let passed: Vec<_> = sd_notify::listen_fds().map_err(wrong)?.collect();
        if passed.is_empty() {
            return Ok(vec![]);
        }
        // A number is no owned descriptor; a duplicate through a pidfd of ourselves is one.
        let ourselves =
            rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
                .map_err(|error| wrong(error.into()))?;
        let take = |number| -> io::Result<Self> {
            let flags = rustix::process::PidfdGetfdFlags::empty();
            let socket: OwnedFd = rustix::process::pidfd_getfd(&ourselves, number, flags)?;
            let socket = std::os::unix::net::UnixListener::from(socket);
            socket.set_nonblocking(true)?;
            Ok(Self { socket: UnixListener::from_std(socket)?, ours: None })
        };
        passed.into_iter().map(|number| take(number).map_err(wrong)).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((path, inode)) = &self.ours
            && std::fs::symlink_metadata(path).is_ok_and(|found| found.ino() == *inode)
        {
            std::fs::remove_file(path).ok();
        }
    }
}

/// Binds under a temporary name, sets owner and mode, and renames: nobody meets a socket with a mode
/// that is too wide, or one that does not listen.
fn bind_unix(path: &Path, group: Option<&str>) -> Result<Listener, ConfigError> {
    let fail = |error: io::Error| ConfigError::Value(format!("socket {}: {error}", path.display()));
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ConfigError::Value(format!(
                "socket {}: a file that is no socket is there",
                path.display()
            )));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => {
                return Err(ConfigError::Value(format!(
                    "socket {}: another process listens on it",
                    path.display()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(fail(error)),
        },
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    std::fs::remove_file(&temporary).ok();
    let socket = UnixListener::bind(&temporary).map_err(fail)?;
    let ready = || -> io::Result<u64> {
        let owner = match group {
            Some(name) => Some(group_id(name)?.ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("group {name:?} does not exist"))
            })?),
            None => group_id("ctl")?,
        };
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o660))?;
        if let Some(gid) = owner {
            std::os::unix::fs::chown(&temporary, None, Some(gid))?;
        }
        let inode = std::fs::symlink_metadata(&temporary)?.ino();
        std::fs::rename(&temporary, path)?;
        Ok(inode)
    };
    match ready() {
        Ok(inode) => Ok(Listener { socket, ours: Some((path.to_owned(), inode)) }),
        Err(error) => {
            std::fs::remove_file(&temporary).ok();
            Err(fail(error))
        }
    }
}

/// The number of a group of `/etc/group`.
fn group_id(name: &str) -> io::Result<Option<u32>> {
    let groups = match std::fs::read_to_string("/etc/group") {
        Ok(groups) => groups,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    }))
}

/// Accepts and answers until `shutdown` is cancelled; then lets open connections end for a few
/// seconds. Long-lived tasks of handlers are to be spawned on `tasks`.
pub async fn serve(
    listeners: Vec<Listener>,
    handler: impl Handler,
    shutdown: CancellationToken,
    tasks: TaskTracker,
) {
    let accepting = TaskTracker::new();
    let stirred = Arc::new(Notify::new());
    for listener in listeners {
        accepting.spawn(accept(listener, handler.clone(), shutdown.clone(), tasks.clone(), stirred.clone()));
    }
    let resting = tokio::spawn(rest(stirred));
    accepting.close();
    accepting.wait().await;
    resting.abort();
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "connections that did not end in time are closed");
    }
}

/// Gives back the memory that work needed, once nobody has connected for a while.
async fn rest(stirred: Arc<Notify>) {
    loop {
        while tokio::time::timeout(QUIET, stirred.notified()).await.is_ok() {}
        if let Err(error) = executor::sys::memory::give_back() {
            tracing::warn!("memory cannot be given back: {error}");
        }
        stirred.notified().await;
    }
}

async fn accept(
    listener: Listener,
    handler: impl Handler,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    stirred: Arc<Notify>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = connection(stream, handler.clone(), shutdown.clone());
                let stirred = stirred.clone();
                drop(tasks.spawn(async move {
                    serving.await;
                    stirred.notify_one();
                }));
            }
            Err(error) => {
                // Out of descriptors or memory: the connection stays in the queue, so a pause helps.
                tracing::error!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, handler: impl Handler, shutdown: CancellationToken) {
    let gone = CancellationToken::new();
    let watch = match Watch::new(&stream) {
        Ok(watch) => watch,
        Err(error) => return tracing::error!("a connection could not be watched: {error}"),
    };
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Gone(gone.clone()));
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(handler.handle(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let mut watched = true;
    let mut asked = false;
    loop {
        tokio::select! {
            result = &mut connection => {
                if let Err(error) = result {
                    tracing::debug!("connection: {error}");
                }
                return;
            }
            () = watch.hung_up(), if watched => {
                watched = false;
                gone.cancel();
            }
            () = shutdown.cancelled(), if !asked => {
                asked = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Tells when the peer of a socket has closed it altogether (not only its writing side).
#[derive(Debug)]
pub struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// A second registration of a socket, independent of who reads and writes it.
    pub fn new(stream: &UnixStream) -> io::Result<Self> {
        let fd = rustix::io::fcntl_dupfd_cloexec(stream, 0)?;
        #[expect(
            deprecated,
            reason = "the successor is unsafe, for descriptors that may close early; this one is owned"
        )]
        let registered = AsyncFd::with_interest(fd, Interest::PRIORITY)?;
        // Registered for out-of-band data, which nobody sends here: only EPOLLHUP and EPOLLERR,
        // which epoll always reports, wake us.
        Ok(Self(registered))
    }

    /// Waits for it. Can be cancelled and called again.
    pub async fn hung_up(&self) {
        while let Ok(mut guard) = self.0.ready(Interest::PRIORITY).await {
            let ready = guard.ready();
            if ready.is_read_closed() || ready.is_write_closed() || ready.is_error() {
                return;
            }
            guard.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hang_up_is_told_from_a_half_close() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let watch = Watch::new(&ours).unwrap();
        let theirs = theirs.into_std().unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let half = tokio::time::timeout(Duration::from_millis(100), watch.hung_up()).await;
        assert!(half.is_err(), "a half-close is no hang-up");
        drop(theirs);
        tokio::time::timeout(Duration::from_secs(10), watch.hung_up()).await.unwrap();
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/s.sock");
        let listen = Listen::Unix(path.clone());
        let first = Listener::bind(&listen, None).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = Listener::bind(&listen, None).unwrap_err();
        assert!(error.to_string().contains("another process listens"), "{error}");
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let second = Listener::bind(&listen, None).unwrap();
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(second);
        std::fs::write(&path, "not a socket").unwrap();
        assert!(Listener::bind(&listen, None).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"not a socket");
    }

    #[tokio::test]
    async fn a_group_that_does_not_exist_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let error = Listener::bind(&Listen::Unix(path), Some("no-such-group")).unwrap_err();
        assert!(error.to_string().contains("no-such-group"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
