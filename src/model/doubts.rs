//! What is doubtful in a volume's attributes and is served all the same, because a peer serves it.

use std::fmt;

/// How many are kept: a list can have hundreds of doubtful elements.
const MAX_KEPT: usize = 8;

/// The doubts about one volume's attributes: the first eight, and the number of the others. It shows no password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubts {
    first: Vec<String>,
    more: usize,
}

impl Doubts {
    /// Adds a doubt about an attribute, which is named with its prefix.
    pub(crate) fn add(&mut self, attribute: &str, problem: &str) {
        let doubt = format!("{attribute}: {problem}");
        if self.first.len() < MAX_KEPT {
            self.first.push(doubt);
        } else {
            self.more += 1;
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }
}

impl fmt::Display for Doubts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join("; "))?;
        if self.more > 0 { write!(f, "; and {} more", self.more) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_listed_and_the_rest_counted() {
        let mut doubts = Doubts::default();
        assert!(doubts.is_empty());
        (0..11).for_each(|number| doubts.add("a/b", &format!("is {number}")));
        let text = doubts.to_string();
        assert!(
            text.starts_with("a/b: is 0; a/b: is 1; ") && text.ends_with("a/b: is 7; and 3 more"),
            "{text}"
        );
    }
}
