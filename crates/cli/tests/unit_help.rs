//! The whole help is a snapshot: a change of the command line is seen in review.

use clap::CommandFactory as _;
use kiln::cli::Cli;

#[test]
fn unit_the_whole_help() {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut text = command.render_long_help().to_string();
    below(&mut command, "kiln", &mut text);
    insta::assert_snapshot!(text);
}

fn below(command: &mut clap::Command, name: &str, text: &mut String) {
    for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
        let name = format!("{name} {}", verb.get_name());
        *text += &format!("\n======== {name}\n{}", verb.render_long_help());
        below(verb, &name, text);
    }
}

#[test]
fn unit_the_command_line_is_consistent() {
    Cli::command().debug_assert();
}
