//! Reading single attributes of one volume while collecting what is wrong with them.

use super::context::MOST_BYTES;
use super::errors::{AttributeError, shown};
use super::sorted::Sorted;
use super::table::{Default, Key};
use super::values::{go_duration, list, template};
use super::{Dialect, PodIdentity};
use std::collections::BTreeMap;
use std::time::Duration;

/// The attributes of one volume. Every method that answers `None` or less than was given has noted a fault, unless the attribute
/// has neither value nor default.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) dialect: Dialect,
    pod: &'a PodIdentity,
    given: BTreeMap<Key, &'a str>,
    /// Bytes of all values so far, their variables replaced: a pod's name can be 28 times as long as its variable.
    expanded: usize,
    pub(super) faults: Vec<AttributeError>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(sorted: Sorted<'a>, pod: &'a PodIdentity) -> (Self, BTreeMap<String, String>) {
        let Sorted { dialect, given, annotations, faults } = sorted;
        (Self { dialect, pod, given, expanded: 0, faults }, annotations)
    }

    /// The value as written, if there is one.
    pub(super) fn given(&self, key: Key) -> Option<&'a str> {
        self.given.get(&key).copied()
    }

    /// The value, or else the default, its variables replaced.
    pub(super) fn text(&mut self, key: Key) -> Option<String> {
        let default = match key.row().default(self.dialect) {
            Default::Value(value) => Some(value),
            Default::None | Default::Told(_) => None,
        };
        let text = self.given(key).or(default)?;
        if !key.row().templated {
            return Some(text.to_owned());
        }
        let expanded = template::expand(text, self.pod).and_then(|expanded| {
            self.expanded = self.expanded.saturating_add(expanded.len());
            if self.expanded <= MOST_BYTES {
                return Ok(expanded);
            }
            Err(format!(
                "makes more than {MOST_BYTES} bytes of the volume's attributes, its variables replaced"
            ))
        });
        expanded.map_err(|problem| self.invalid(key, text, problem)).ok()
    }

    /// The value after a check.
    pub(super) fn checked<T>(&mut self, key: Key, check: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(key)?;
        check(&text).map_err(|problem| self.invalid(key, &text, problem)).ok()
    }

    /// The elements of a list, each after a check; those that fail are left out.
    pub(super) fn list<T>(&mut self, key: Key, check: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let Some(elements) = self.checked(key, list::split) else { return Vec::new() };
        let checked = elements
            .iter()
            .filter_map(|element| check(element).map_err(|problem| self.invalid(key, element, problem)).ok());
        checked.collect()
    }

    pub(super) fn switch(&mut self, key: Key) -> Option<bool> {
        self.checked(key, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("is neither".into()),
        })
    }

    pub(super) fn duration(&mut self, key: Key) -> Option<Duration> {
        self.checked(key, go_duration::positive)
    }

    /// Notes that a value breaks its rule.
    pub(super) fn invalid(&mut self, key: Key, value: &str, problem: String) {
        let row = key.row();
        self.faults.push(AttributeError::Invalid {
            attribute: key.full(self.dialect),
            value: if row.secret { "(value not shown)".into() } else { shown(value) },
            problem,
            accepted: row.rule.into(),
        });
    }

    /// Notes that a required attribute is not there.
    pub(super) fn missing(&mut self, key: Key, accepted: String) {
        self.faults.push(AttributeError::Missing { attribute: key.full(self.dialect), accepted });
    }

    /// Notes that an attribute collides with another.
    pub(super) fn conflict(&mut self, key: Key, problem: String, accepted: &str) {
        self.faults.push(AttributeError::Conflict {
            attribute: key.full(self.dialect),
            problem,
            accepted: accepted.into(),
        });
    }

    /// Notes every one of `keys` that is given though it may not be.
    pub(super) fn refuse(&mut self, keys: &[Key], problem: &str, accepted: &str) {
        for key in keys.iter().filter(|key| self.given.contains_key(key)).copied().collect::<Vec<_>>() {
            self.conflict(key, problem.to_owned(), accepted);
        }
    }
}
