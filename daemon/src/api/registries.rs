//! What needs a registry beside pulling: push, login, search.

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use storage::{Credentials, LoginError, PushError, PushRequest};
use tokio::sync::mpsc;

use super::error::{Answer, Failure};
use super::images::emit;
use super::pull::Work;
use super::request::{Json, Params, credentials, credentials_from_json};
use super::{Api, reply};

/// Messages that may wait for the client.
const WAITING: usize = 64;
/// Results of a search where the client names no limit.
const SEARCH_RESULTS: u32 = 25;

/// `POST /images/{name}/push`
pub async fn push(api: &Api, name: &str, params: &Params, headers: &HeaderMap) -> Answer {
    if params.get("platform").is_some() {
        return Err(Failure::unsupported("pushing one platform of an image"));
    }
    let tag = params.get("tag");
    let reference = tag.map_or_else(|| name.to_owned(), |tag| format!("{name}:{tag}"));
    let all_tags = tag.is_none();
    let push = PushRequest { reference: reference.clone(), all_tags, credentials: credentials(headers) };
    let (sink, messages) = mpsc::channel(WAITING);
    let api = api.clone();
    let work = async move {
        let pushed = api.store().push(push, sink).await?;
        emit(&api, "push", &reference, &reference);
        let lines = pushed.into_iter().map(|pushed| {
            let aux = json!({"Tag": pushed.tag, "Digest": pushed.digest, "Size": pushed.size_bytes});
            json!({"progressDetail": {}, "aux": aux})
        });
        Ok(lines.collect())
    };
    Work::new(Box::pin(work), messages).answer().await
}

/// `POST /auth`
pub async fn auth(State(api): State<Api>, Json(body): Json) -> Answer {
    let registry = body.get("serveraddress").and_then(Value::as_str).unwrap_or_default();
    let credentials = credentials_from_json(body.to_string().as_bytes())
        .ok_or_else(|| Failure::bad("invalid JSON: not an AuthConfig"))?;
    if matches!(credentials, Credentials::Anonymous) {
        return Err(Failure::bad("no username or token was given"));
    }
    let login = api.store().login_check(registry, &credentials).await?;
    Ok(reply::ok(&json!({
        "Status": login.status,
        "IdentityToken": login.identity_token.unwrap_or_default(),
    })))
}

/// `GET /images/search`
pub async fn search(State(api): State<Api>, params: Params, headers: HeaderMap) -> Answer {
    let Some(term) = params.get("term") else {
        return Err(Failure::bad("no search term was given"));
    };
    let limit = params.number::<u32>("limit")?.filter(|&limit| limit > 0).unwrap_or(SEARCH_RESULTS);
    if limit > 100 {
        return Err(Failure::bad(format!("limit {limit} is outside the range of [1, 100]")));
    }
    let filters = params.filters()?.only(&["is-automated", "is-official", "stars"])?;
    let (automated, official) = (filters.boolean("is-automated")?, filters.boolean("is-official")?);
    let stars = filters
        .get("stars")
        .iter()
        .map(|text| text.parse::<i64>().map_err(|_| Failure::bad(format!("invalid filter 'stars={text}'"))));
    let stars = stars.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0);
    let found = api.store().search(term, limit, &credentials(&headers)).await?;
    let found: Vec<Value> = found
        .iter()
        .filter(|result| {
            automated.is_none_or(|wanted| result.is_automated == wanted)
                && official.is_none_or(|wanted| result.is_official == wanted)
                && result.star_count >= stars
        })
        .map(|result| {
            json!({
                "name": result.name, "description": result.description, "star_count": result.star_count,
                "is_official": result.is_official, "is_automated": result.is_automated,
            })
        })
        .collect();
    Ok(reply::ok(&found))
}

impl From<PushError> for Failure {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Reference(error) => error.into(),
            PushError::NotFound(message) => Self::not_found(message),
            error => Self::internal(error.to_string()),
        }
    }
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Unauthorized(message) => Self::new(StatusCode::UNAUTHORIZED, message),
            LoginError::Invalid(message) => Self::bad(message),
            LoginError::Unavailable(message) => Self::internal(message),
        }
    }
}
