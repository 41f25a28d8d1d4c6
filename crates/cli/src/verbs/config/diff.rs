//! `kiln config diff`: how two configurations of a group differ.

use kiln_api::{
    Client,
    config::{ConfigDiff, ConfigDiffRequest, Side, ValueDiff},
};
use serde_json::Value;

use super::{super::Context, one_line};
use crate::{
    cli::ConfigDiff as Arguments,
    exit::Exit,
    failure::Failure,
    project,
    ui::{self, table},
};

pub(super) async fn run(context: &Context<'_>, arguments: &Arguments) -> Result<Exit, Failure> {
    let from = Side::Release(arguments.from.clone());
    let to = match &arguments.to {
        Some(release) => Side::Release(release.clone()),
        None => fleet(arguments)?,
    };
    let request = ConfigDiffRequest { group: arguments.group.clone(), from, to };
    let diff = Client::new(&context.state).config_diff(&request).await?;
    context.ui.result(&diff, || text(&diff));
    Ok(Exit::Ok)
}

/// What the fleet's file gives now.
fn fleet(arguments: &Arguments) -> Result<Side, Failure> {
    let files = project::fleet(&arguments.directory, arguments.env.as_ref())?;
    let fleet = Box::new(project::with_variables(files.fleet)?);
    Ok(Side::Fleet { fleet, directory: project::absolute(&arguments.directory)? })
}

fn text(diff: &ConfigDiff) -> String {
    let (from, to) = (ui::short(&diff.from.release), ui::short(&diff.to.release));
    let image = match diff.from.image == diff.to.image {
        true => format!("both on image {}", ui::short(&diff.from.image)),
        false => format!("image {} → {}", ui::short(&diff.from.image), ui::short(&diff.to.image)),
    };
    let changed: Vec<_> = diff.values.iter().filter(|value| value.change != "same").map(cells).collect();
    let same = diff.values.len() - changed.len();
    let head = format!("release {from} → {to}, {image}\n");
    match changed.is_empty() {
        true => format!("{head}the configurations are the same, {same} values"),
        false => format!("{head}{}{same} values are the same", table::render(&["KEY", "OLD", "NEW", ""], &changed)),
    }
}

fn cells(value: &ValueDiff) -> Vec<String> {
    let shown = |shown: &Option<Value>, there: bool| match (shown, there) {
        (Some(value), _) => one_line(value),
        (None, true) => "secret".to_owned(),
        (None, false) => "-".to_owned(),
    };
    let (old, new) = (shown(&value.old, value.change != "added"), shown(&value.new, value.change != "removed"));
    vec![value.key.clone(), old, new, value.change.clone()]
}

#[cfg(test)]
mod tests {
    use kiln_api::config::SideShown;
    use serde_json::json;

    use super::*;

    #[test]
    fn unit_a_diff_shows_what_changed_and_no_secret() {
        let side = |c: char| {
            let digest = |c: char| format!("sha256:{}", c.to_string().repeat(64));
            SideShown { release: digest(c), image: digest('a'), config: digest(c) }
        };
        let value = |key: &str, change: &str, secret, old: Option<Value>, new: Option<Value>| ValueDiff {
            key: key.into(),
            change: change.into(),
            secret,
            old,
            new,
        };
        let values = vec![
            value("greeting", "changed", false, Some(json!("hi")), Some(json!("he\u{1b}llo"))),
            value("motto", "removed", false, Some(json!("x")), None),
            value("password", "changed", true, None, None),
            value("token", "same", true, None, None),
            value("workers", "added", false, None, Some(json!(4))),
        ];
        let diff = ConfigDiff { group: "web".into(), from: side('b'), to: side('c'), values };
        insta::assert_snapshot!(anstream::adapter::strip_str(&text(&diff)).to_string());
    }
}
