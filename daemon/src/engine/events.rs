//! The event bus: a bounded history and a live broadcast.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use proto_api::filters::Filters;
use proto_api::models::{
    EventActor, EventMessage, EventMessageScopeEnum as Scope, EventMessageTypeEnum as Kind,
};
use tokio::sync::broadcast;

use super::{Error, EventOptions};

/// How many events are kept for `--since`.
const HISTORY: usize = 256;

/// The bus.
#[derive(Debug)]
pub struct Events {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    history: VecDeque<Arc<EventMessage>>,
    live: broadcast::Sender<Arc<EventMessage>>,
}

impl Default for Events {
    fn default() -> Self {
        let inner =
            Inner { history: VecDeque::with_capacity(HISTORY), live: broadcast::Sender::new(HISTORY) };
        Self { inner: Mutex::new(inner) }
    }
}

const FILTERS: [&str; 15] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
    "builder",
];

impl Events {
    /// Tells everybody.
    pub fn emit(&self, kind: Kind, action: &str, actor: &str, attributes: HashMap<String, String>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = Arc::new(EventMessage {
            typ: Some(kind),
            action: Some(action.to_owned()),
            actor: Some(EventActor { id: Some(actor.to_owned()), attributes: Some(attributes) }),
            scope: Some(Scope::LOCAL),
            time: i64::try_from(now.as_secs()).ok(),
            time_nano: i64::try_from(now.as_nanos()).ok(),
        });
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.history.len() == HISTORY {
            inner.history.pop_front();
        }
        inner.history.push_back(event.clone());
        // Nobody listening is fine.
        inner.live.send(event).ok();
    }

    /// The kept events since a time, then those to come.
    pub fn subscribe(&self, options: EventOptions) -> Result<BoxStream<'static, EventMessage>, Error> {
        let filters = options.filters.only(&FILTERS).map_err(|error| Error::Invalid(error.to_string()))?;
        let nanos = |time: SystemTime| {
            i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
        };
        let since = options.since.map(nanos);
        let until = options.until;
        let (kept, live) = {
            let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let kept: Vec<_> = match since {
                Some(since) => inner.history.iter().filter(|e| e.time_nano >= Some(since)).cloned().collect(),
                None => vec![],
            };
            (kept, inner.live.subscribe())
        };
        let end = until.map(nanos);
        let kept = futures_util::stream::iter(kept).filter(move |e| {
            let before = end.is_none_or(|end| e.time_nano <= Some(end));
            async move { before }
        });
        let live = futures_util::stream::unfold(live, |mut live| async move {
            loop {
                match live.recv().await {
                    Ok(event) => return Some((event, live)),
                    // A slow reader loses events rather than holding up the engine.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        let timer = async move {
            match until {
                Some(until) => {
                    tokio::time::sleep(until.duration_since(SystemTime::now()).unwrap_or_default()).await;
                }
                None => std::future::pending().await,
            }
        };
        let all = kept.chain(live.take_until(timer));
        Ok(all
            .filter_map(move |event| {
                let wanted = matches(&filters, &event).then(|| (*event).clone());
                async move { wanted }
            })
            .boxed())
    }
}

fn matches(filters: &Filters, event: &EventMessage) -> bool {
    let kind = event.typ.map(|kind| kind.to_string()).unwrap_or_default();
    let action = event.action.as_deref().unwrap_or_default();
    let actor = event.actor.as_ref();
    let id = actor.and_then(|actor| actor.id.as_deref()).unwrap_or_default();
    let attribute = |name: &str| actor.and_then(|actor| actor.attributes.as_ref()?.get(name).cloned());
    let names = |value: &String| {
        let named = attribute("name").is_some_and(|name| name == value.trim_start_matches('/'));
        (value.len() >= 4 && id.starts_with(value.as_str())) || id == value || named
    };
    let of_kind = |filter: &str| {
        !filters.has(filter)
            || (kind == filter && filters.any(filter, names))
            || (filter == "image" && filters.any(filter, |value| attribute("image").as_ref() == Some(value)))
    };
    filters.any("type", |value| *value == kind)
        && filters.any("event", |value| action == value || action.split(':').next() == Some(value))
        && filters.any("scope", |value| value == "local")
        && ["container", "image", "network", "volume", "daemon", "plugin"].into_iter().all(of_kind)
        && filters.labels("label", attribute)
        && ["config", "node", "secret", "service", "builder"].iter().all(|name| !filters.has(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_past_comes_first_and_filters_hold() {
        let bus = Events::default();
        let named = |name: &str| HashMap::from([("name".to_owned(), name.to_owned())]);
        bus.emit(Kind::CONTAINER, "create", "aaaa1", named("one"));
        bus.emit(Kind::IMAGE, "pull", "busybox:latest", named("busybox"));
        let mut filters = Filters::default();
        filters.add("container", "one");
        let options = EventOptions { since: Some(UNIX_EPOCH), until: None, filters };
        let mut stream = bus.subscribe(options).unwrap();
        bus.emit(Kind::CONTAINER, "start", "bbbb2", named("two"));
        bus.emit(Kind::CONTAINER, "start", "aaaa1", named("one"));
        assert_eq!(stream.next().await.unwrap().action.as_deref(), Some("create"));
        assert_eq!(stream.next().await.unwrap().action.as_deref(), Some("start"));
    }

    #[tokio::test]
    async fn the_stream_ends_at_until() {
        let bus = Events::default();
        let options = EventOptions { until: Some(SystemTime::now()), ..EventOptions::default() };
        assert!(bus.subscribe(options).unwrap().next().await.is_none());
    }
}
