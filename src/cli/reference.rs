//! `certlet reference`: pages of the documentation that are generated from the code.

use super::Cli;
use clap::{Arg, ArgAction, Args, Command, CommandFactory, ValueEnum};
use std::fmt::Write;

/// `certlet reference`
#[derive(Clone, Copy, Debug, Args)]
pub struct ReferenceArgs {
    /// Which page.
    #[arg(value_enum)]
    pub page: Page,
}

/// The generated pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Page {
    /// docs/attributes.md
    Attributes,
    /// docs/cli.md
    Cli,
}

impl ReferenceArgs {
    /// The page, Markdown.
    pub fn render(self) -> String {
        match self.page {
            Page::Attributes => crate::attributes::reference_markdown(),
            Page::Cli => command_reference(),
        }
    }
}

/// The command line reference, Markdown, with the sections of a manual page.
fn command_reference() -> String {
    let mut cli = Cli::command();
    cli.build();
    let mut page = String::from(
        "# The certlet command\n\nGenerated from the code by `make docs`. Most flags are also environment variables; the flag \
         wins.\nAn invalid value ends the command with exit code 2 and one line that says what is accepted.\n",
    );
    render_subcommands(&cli, &mut page);
    page
}

fn render_subcommands(command: &Command, page: &mut String) {
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        render(subcommand, page);
    }
}

fn render(command: &Command, page: &mut String) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let name = command.get_bin_name().unwrap_or_default().trim_start_matches("certlet ");
    let _infallible = write!(page, "\n## certlet {name}\n\n{about}\n\n```text\n{usage}\n```\n");
    if let Some(example) = command.get_after_help() {
        // The first line says what it is for.
        let example = example.to_string();
        let (purpose, lines) = example.split_once("\n  ").unwrap_or(("Example", &example));
        let purpose = purpose.replace('\n', " ");
        let _infallible = write!(page, "\n{purpose}:\n\n```sh\n{}\n```\n", lines.replace("\n  ", "\n"));
    }
    for arg in command.get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")) {
        render_arg(arg, page);
    }
    render_subcommands(command, page);
}

fn render_arg(arg: &Arg, page: &mut String) {
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let value = arg.get_value_names().filter(|_| takes_value).and_then(<[_]>::first);
    let name = match (arg.get_long(), value) {
        (Some(long), Some(value)) => format!("--{long} {value}"),
        (Some(long), None) => format!("--{long}"),
        (None, _) => arg.get_id().as_str().to_uppercase(),
    };
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let _infallible = write!(page, "\n### `{name}`\n\n{help}\n");
    let mut facts = Vec::new();
    if let Some(variable) = arg.get_env() {
        facts.push(format!("Environment: `{}`.", variable.to_string_lossy()));
    }
    let accepted: Vec<String> =
        arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if takes_value && !accepted.is_empty() {
        facts.push(format!("Accepted: {}.", accepted.join(", ")));
    }
    if takes_value && let [default] = arg.get_default_values() {
        facts.push(format!("Default: `{}`.", default.to_string_lossy()));
    }
    if arg.is_required_set() {
        facts.push("Required.".to_owned());
    }
    if !facts.is_empty() {
        let _infallible = write!(page, "\n{}\n", facts.join(" "));
    }
}
