//! Objects that are followed for ever: by watches that never end, or by reading them every so often.

use super::{Cluster, polling};
use crate::model::{MAX_MESSAGE_BYTES, clipped};
use futures_util::{Stream, StreamExt, TryStreamExt};
use kube::core::Status;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Error, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::future::ready;

/// Seconds after which the API server ends a watch, so that a dead connection is noticed. The watch is then resumed.
const TIMEOUT: u32 = 120;
/// Objects per page of a list. An object has at most 1.5 MiB (etcd's limit on a request), and a page takes about four times its
/// size while it is read.
const PAGE_SIZE: u32 = 10;

/// An interruption of a watch, or a reading that has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatchError {
    /// The server's own words if there are any, cut.
    pub(crate) cause: String,
    /// The resource version has expired (410), so that only a new list helps.
    pub(crate) is_expired: bool,
    /// The server has refused it (403): RBAC does not allow it.
    pub(crate) is_forbidden: bool,
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

impl Cluster {
    /// As [`follow`]; if the cluster is polled, lists alone.
    pub(crate) fn follow<K>(
        &self,
        api: Api<K>,
        config: Config,
    ) -> impl Stream<Item = Result<Event<K>, WatchError>> + Send + use<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        match self.poll_interval {
            Some(interval) => polling::lists(api, &config.page_size(PAGE_SIZE), interval).left_stream(),
            None => follow(api, config).right_stream(),
        }
    }

    /// Follows one object: as it is now, then after each change; `None` while it does not exist. If the cluster is polled: as it is at
    /// each reading, with the verb `get` alone.
    pub(crate) fn follow_object<K>(
        &self,
        api: Api<K>,
        name: &str,
    ) -> impl Stream<Item = Result<Option<K>, WatchError>> + Send + use<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        match self.poll_interval {
            Some(interval) => polling::object(api, name.to_owned(), interval).left_stream(),
            None => watch_object(api, name).right_stream(),
        }
    }
}

fn watch_object<K>(
    api: Api<K>,
    name: &str,
) -> impl Stream<Item = Result<Option<K>, WatchError>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let events = follow(api, Config::default().fields(&format!("metadata.name={name}")));
    let mut listed = Listed(false);
    events.filter_map(move |event| ready(listed.object(event)))
}

/// Whether the list that has begun has the object.
struct Listed(bool);

impl Listed {
    /// What an event says of the object; none: nothing.
    fn object<K>(&mut self, event: Result<Event<K>, WatchError>) -> Option<Result<Option<K>, WatchError>> {
        let is_listed = std::mem::take(&mut self.0);
        match event {
            Err(error) => Some(Err(error)),
            Ok(Event::Init) => None,
            Ok(Event::InitApply(object)) => {
                self.0 = true;
                Some(Ok(Some(object)))
            }
            Ok(Event::InitDone) if is_listed => None,
            Ok(Event::InitDone | Event::Delete(_)) => Some(Ok(None)),
            Ok(Event::Apply(object)) => Some(Ok(Some(object))),
        }
    }
}

impl From<Error> for WatchError {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::WatchError(status)
            | Error::InitialListFailed(kube::Error::Api(status))
            | Error::WatchStartFailed(kube::Error::Api(status))
            | Error::WatchFailed(kube::Error::Api(status)) => Some(&**status),
            _ => None,
        };
        Self::new(&error, status)
    }
}

impl From<kube::Error> for WatchError {
    fn from(error: kube::Error) -> Self {
        let status = match &error {
            kube::Error::Api(status) => Some(&**status),
            _ => None,
        };
        Self::new(&error, status)
    }
}

impl WatchError {
    fn new(error: &dyn std::error::Error, status: Option<&Status>) -> Self {
        let cause = status.map_or_else(|| error.to_string(), |status| status.message.clone());
        let is_code = |code| status.is_some_and(|status| status.code == code);
        Self {
            cause: clipped(&cause, MAX_MESSAGE_BYTES),
            is_expired: is_code(410),
            is_forbidden: is_code(403),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_gone_when_it_is_deleted_and_when_a_list_does_not_have_it() {
        let mut listed = Listed(false);
        let error = WatchError { cause: String::new(), is_expired: true, is_forbidden: false };
        for (event, expected) in [
            (Ok(Event::InitDone), Some(Ok(None))),
            (Ok(Event::Apply(1)), Some(Ok(Some(1)))),
            (Ok(Event::Delete(1)), Some(Ok(None))),
            (Err(error.clone()), Some(Err(error.clone()))),
            (Ok(Event::InitApply(2)), Some(Ok(Some(2)))),
            (Ok(Event::InitDone), None),
            (Ok(Event::InitApply(3)), Some(Ok(Some(3)))),
            // The list is cut off, and the next one does not have it.
            (Err(error.clone()), Some(Err(error.clone()))),
            (Ok(Event::Init), None),
            (Ok(Event::InitDone), Some(Ok(None))),
        ] {
            assert_eq!(listed.object(event), expected);
        }
    }
}
