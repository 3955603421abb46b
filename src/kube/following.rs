//! Watches that never end.

use crate::model::{MAX_MESSAGE_BYTES, clipped};
use futures_util::{Stream, TryStreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Error, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Seconds after which the API server ends a watch, so that a dead connection is noticed. The watch is then resumed.
const TIMEOUT: u32 = 120;
/// Objects per page of a list. An object has at most 1.5 MiB (etcd's limit on a request), and a page takes about four times its
/// size while it is read.
const PAGE_SIZE: u32 = 10;

/// An interruption of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatchError {
    /// The server's own words if there are any, cut.
    pub(crate) cause: String,
    /// The resource version has expired (410), so that only a new list helps.
    pub(crate) is_expired: bool,
}

/// Lists and watches objects. After an interruption the watch is resumed, or begins again with a list: after a pause that grows to
/// 30 s, with jitter. There is no `Event::Init`.
pub(crate) fn follow<K>(
    api: Api<K>,
    config: Config,
) -> impl Stream<Item = Result<Event<K>, WatchError>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    // `Init` is passed over, because it only says that a list begins, and would reset the backoff.
    watcher(api, config.timeout(TIMEOUT).page_size(PAGE_SIZE))
        .try_filter(|event| std::future::ready(!matches!(event, Event::Init)))
        .default_backoff()
        .map_err(WatchError::from)
}

impl From<Error> for WatchError {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::WatchError(status)
            | Error::InitialListFailed(kube::Error::Api(status))
            | Error::WatchStartFailed(kube::Error::Api(status))
            | Error::WatchFailed(kube::Error::Api(status)) => Some(status),
            _ => None,
        };
        let cause = status.map_or_else(|| error.to_string(), |status| status.message.clone());
        Self {
            cause: clipped(&cause, MAX_MESSAGE_BYTES),
            is_expired: status.is_some_and(|status| status.code == 410),
        }
    }
}
