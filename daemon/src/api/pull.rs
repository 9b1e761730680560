//! `POST /images/create`: pulling, with Docker's progress as a JSON stream.
//!
//! The work is done while the client reads: a client that goes away stops it, and what was fetched is
//! used by the next pull. An error before the first message is a status; later it is a message.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use http::Request;
use serde_json::{Value, json};
use storage::{Progress, PullRequest, Reference};
use tokio::sync::mpsc;

use super::error::{Answer, Failure};
use super::request::{Params, credentials};
use super::{Api, archives, images, reply};

/// Messages that may wait for the client.
const WAITING: usize = 64;

/// `POST /images/create`
pub async fn create(State(api): State<Api>, params: Params, request: Request<Body>) -> Answer {
    if let Some(source) = params.get("fromSrc") {
        let source = source.to_owned();
        return archives::import(api, params, source, request).await;
    }
    let Some(image) = params.get("fromImage") else {
        return Err(Failure::bad(
            "invalid reference format: repository name must have at least one component",
        ));
    };
    let reference = match params.get("tag") {
        Some(tag) if tag.contains(':') => format!("{image}@{tag}"),
        Some(tag) => format!("{image}:{tag}"),
        None => image.to_owned(),
    };
    // Clients that want `latest` say so.
    let all_tags =
        Reference::parse(&reference).is_ok_and(|name| name.tag().is_none() && name.digest().is_none());
    let pull = PullRequest {
        reference: reference.clone(),
        platform: params.text("platform"),
        credentials: credentials(request.headers()),
    };
    let (sink, messages) = mpsc::channel(WAITING);
    let work = async move {
        if all_tags {
            drop(api.store().pull_all_tags(pull, sink).await?);
        } else {
            drop(api.store().pull(pull, sink).await?);
        }
        images::emit(&api, "pull", &reference, &reference);
        Ok(vec![])
    };
    Work::new(Box::pin(work), messages).answer().await
}

/// Something long that reports progress: the work itself, and its messages. Gives further lines to
/// send at the end.
pub struct Work {
    work: Option<BoxFuture<'static, Result<Vec<Value>, Failure>>>,
    messages: mpsc::Receiver<Progress>,
    /// Lines that are to be sent before anything else.
    ready: VecDeque<Bytes>,
    /// What the work ended with, until all of its messages are sent.
    outcome: Option<Result<Vec<Value>, Failure>>,
}

impl Work {
    /// Nothing runs before the answer is asked for.
    pub fn new(
        work: BoxFuture<'static, Result<Vec<Value>, Failure>>,
        messages: mpsc::Receiver<Progress>,
    ) -> Self {
        Self { work: Some(work), messages, ready: VecDeque::new(), outcome: None }
    }

    /// Waits for the first message and answers with a stream, or with the status of an error.
    pub async fn answer(mut self) -> Answer {
        match std::future::poll_fn(|context| self.poll_line(context)).await {
            Some(Ok(first)) => {
                self.ready.push_front(first);
                Ok(reply::stream("application/json", self))
            }
            Some(Err(failure)) => Err(failure),
            None => Ok(reply::stream("application/json", self)),
        }
    }

    fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(line)));
            }
            if let Some(work) = &mut self.work
                && let Poll::Ready(outcome) = work.as_mut().poll(context)
            {
                self.work = None;
                self.outcome = Some(outcome);
            }
            match self.messages.poll_recv(context) {
                Poll::Ready(Some(progress)) => return Poll::Ready(Some(Ok(reply::line(&line(&progress))))),
                Poll::Ready(None) => {}
                // A sender may outlive the work; what it says after the end is not waited for.
                Poll::Pending if self.work.is_none() => {}
                Poll::Pending => return Poll::Pending,
            }
            match self.outcome.take() {
                Some(Ok(last)) => self.ready.extend(last.iter().map(reply::line)),
                Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
                None if self.work.is_some() => return Poll::Pending,
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Stream for Work {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_line(context)
            .map(|line| line.map(|line| line.or_else(|failure| Ok(reply::line(&late_error(&failure))))))
    }
}

/// An error once the status has been sent.
pub fn late_error(failure: &Failure) -> Value {
    tracing::warn!("{}", failure.message);
    json!({"errorDetail": {"message": failure.message}, "error": failure.message})
}

/// A message in Docker's form.
fn line(progress: &Progress) -> Value {
    match progress {
        Progress::Status { id: None, status } => json!({"status": status}),
        Progress::Status { id: Some(id), status } => {
            json!({"status": status, "progressDetail": {}, "id": id})
        }
        Progress::Bytes { id, status, current, total } => {
            let detail = if *total > 0 {
                json!({"current": current, "total": total})
            } else {
                json!({"current": current})
            };
            json!({"status": status, "progressDetail": detail, "progress": bar(*current, *total), "id": id})
        }
    }
}

/// The drawn bar that older clients print as it is.
fn bar(current: u64, total: u64) -> String {
    if total == 0 {
        return human(current);
    }
    let filled = usize::try_from(current.min(total) * 50 / total).unwrap_or(50);
    let mut text = "=".repeat(filled);
    text.push('>');
    text.push_str(&" ".repeat(50 - filled));
    text.truncate(50);
    format!("[{text}]  {}/{}", human(current), human(total))
}

/// Sizes as Docker prints them: powers of 1000, four significant digits.
#[expect(clippy::cast_precision_loss, reason = "it is for people")]
fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    let digits = match value {
        v if unit == "B" || v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    fn status(text: &str) -> Progress {
        Progress::Status { id: None, status: text.into() }
    }

    async fn body(answer: Answer) -> String {
        let body = axum::body::to_bytes(answer.unwrap().into_body(), 1 << 20).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_early_error_is_a_status_and_a_late_one_a_message() {
        let (sink, messages) = mpsc::channel(1);
        let work = Box::pin(async move {
            drop(sink);
            Err(Failure::not_found("nope"))
        });
        assert_eq!(Work::new(work, messages).answer().await.unwrap_err().message, "nope");

        let (sink, messages) = mpsc::channel(1);
        let work = Box::pin(async move {
            sink.send(status("one")).await.ok();
            sink.send(status("two")).await.ok();
            Err(Failure::internal("broke"))
        });
        let text = body(Work::new(work, messages).answer().await).await;
        assert_eq!(
            text,
            "{\"status\":\"one\"}\r\n{\"status\":\"two\"}\r\n\
             {\"errorDetail\":{\"message\":\"broke\"},\"error\":\"broke\"}\r\n"
        );
    }

    #[tokio::test]
    async fn dropping_the_body_stops_the_work() {
        let (sink, messages) = mpsc::channel(1);
        let (alive, mut ended) = mpsc::channel::<()>(1);
        let work = Box::pin(async move {
            let _alive = alive;
            sink.send(status("one")).await.ok();
            std::future::pending().await
        });
        let answer = Work::new(work, messages).answer().await.unwrap();
        let mut body = answer.into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), "{\"status\":\"one\"}\r\n");
        drop(body);
        assert_eq!(ended.recv().await, None);
    }

    #[test]
    fn bars_look_like_dockers() {
        assert_eq!(human(999), "999B");
        assert_eq!(human(1_234_567), "1.235MB");
        assert_eq!(human(2_000_000), "2MB");
        assert_eq!(bar(5, 10), format!("[{}>{}]  5B/10B", "=".repeat(25), " ".repeat(24)));
        assert_eq!(bar(10, 10), format!("[{}]  10B/10B", "=".repeat(50)));
    }
}
