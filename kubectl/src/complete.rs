//! Completion inside kubectl: it runs a program `kubectl_complete-certlet` for words after `kubectl certlet`. A link of that name to
//! this program will do.

use crate::args::{Cli, ClusterArgs};
use crate::kubectl::{Kubectl, MAX_OBJECTS_BYTES, TIMEOUT};
use clap::CommandFactory;
use std::path::Path;

/// Tells kubectl's shell function not to complete files.
const NO_FILES: &str = ":4\n";

/// Whether kubectl asks for completions.
pub(crate) fn is_called() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| {
        Path::new(&name).file_name().is_some_and(|name| name == "kubectl_complete-certlet")
    })
}

/// The candidates for the last word, one a line.
pub(crate) fn candidates(words: &[String]) -> String {
    let (last, before) =
        words.split_last().map_or((String::new(), &[][..]), |(last, before)| (last.clone(), before));
    let cli = Cli::command();
    let subcommand = before.iter().find_map(|word| cli.find_subcommand(word));
    let found: Vec<String> = match subcommand {
        _ if last.starts_with('-') => {
            let arguments =
                cli.get_arguments().chain(subcommand.into_iter().flat_map(clap::Command::get_arguments));
            arguments.filter_map(|argument| argument.get_long()).map(|long| format!("--{long}")).collect()
        }
        None => cli.get_subcommands().map(|subcommand| subcommand.get_name().to_owned()).collect(),
        Some(subcommand) => match subcommand.get_name() {
            "completion" => ["bash", "zsh", "fish"].map(str::to_owned).into(),
            "status" | "why" | "renew" => pods(before),
            _ => Vec::new(),
        },
    };
    let matching = found.into_iter().filter(|candidate| candidate.starts_with(&last));
    matching.map(|candidate| candidate + "\n").collect::<String>() + NO_FILES
}

/// The names of the namespace's pods.
fn pods(words: &[String]) -> Vec<String> {
    let long = words.iter().find_map(|word| word.strip_prefix("--namespace="));
    let flag = words.iter().position(|word| word == "-n" || word == "--namespace");
    let namespace = long.or_else(|| flag.and_then(|at| words.get(at + 1)).map(String::as_str));
    let scope = namespace.map(|namespace| format!("--namespace={namespace}"));
    let mut args = vec!["get", "pods", "--output=name"];
    args.extend(scope.as_deref());
    let printed = Kubectl::new(&ClusterArgs::default()).run(&args, TIMEOUT, MAX_OBJECTS_BYTES);
    let names = printed.map(|printed| printed.stdout).unwrap_or_default();
    names.lines().filter_map(|line| line.strip_prefix("pod/")).map(str::to_owned).collect()
}
