//! A recipe for what was found, with what nobody but a person can decide as questions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use kiln_model::{ByteSize, ImageName, loss::counted, recipe::quoted};
use toml::Value;

use super::{Change, EnabledService, Kind, Listening, Survey, Unowned, User};

mod copy;
mod service;

pub use copy::{Left, copy};
use service::understood;
pub use service::{ServiceText, service_text, writable_text};

/// Directories whose content is somebody's data rather than a part of the server.
const DATA: [&str; 7] = ["/home/", "/root/", "/srv/", "/var/lib/", "/var/mail/", "/var/spool/", "/var/www/"];
/// What a step may copy of a directory, bytes; more is asked about.
const MOST: u64 = 256 << 20;

/// A recipe, the files that it copies, and questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// `image.toml`.
    pub recipe: String,
    /// What its steps copy.
    pub files: Vec<DraftFile>,
    /// What a person must decide.
    pub questions: Vec<String>,
}

/// A file or directory that a step copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftFile {
    /// Where it is in the tree that was surveyed.
    pub from: String,
    /// Where it belongs beside the recipe: `files/root/etc/motd`.
    pub to: String,
}

/// Services that only run what is run at set times. Each such job is a question.
const OF_SET_TIMES: [&str; 4] = ["anacron.service", "atd.service", "cron.service", "cronie.service"];

/// The services that a recipe has.
fn serving(survey: &Survey) -> impl Iterator<Item = &EnabledService> {
    survey.services.iter().filter(|service| !OF_SET_TIMES.contains(&service.unit.as_str()))
}

/// Makes a recipe.
pub fn draft(survey: &Survey, listening: Option<&[Listening]>, name: &ImageName) -> Draft {
    let mut draft = Draft { recipe: String::new(), files: Vec::new(), questions: Vec::new() };
    draft.head(survey, name);
    draft.base(survey);
    draft.users(&survey.users);
    draft.copies(survey);
    serving(survey).for_each(|service| draft.service(service, listening));
    draft.writable(survey);
    draft.tests(survey, listening);
    draft.ask_of_the_rest(survey);
    let asked: String = draft.questions.iter().map(|question| format!("# QUESTION: {question}\n")).collect();
    if !asked.is_empty() {
        draft.recipe.push_str("\n# What nobody but you can decide:\n");
        draft.recipe.push_str(&asked);
    }
    draft
}

impl Draft {
    fn head(&mut self, survey: &Survey, name: &ImageName) {
        let from = &survey.system.name;
        let _ = writeln!(
            self.recipe,
            "# Drafted by `kiln survey` from a server of {from}. Read it, answer the questions at its end, then:"
        );
        let _ = writeln!(self.recipe, "# kiln bake .\nname = {}\n", quoted(name.as_str()));
    }

    fn base(&mut self, survey: &Survey) {
        let system = &survey.system;
        let key = if system.id == "ubuntu" { "ubuntu" } else { "debian" };
        if !["debian", "ubuntu"].contains(&system.id.as_str()) {
            self.questions
                .push(format!("the server was {}: which suite of Debian or Ubuntu takes its place?", system.name));
        }
        let asked = survey.packages.iter().map(|package| package.name.as_str());
        let of_services = serving(survey).filter(|service| service.of_every_debian);
        let packages: BTreeSet<&str> =
            asked.chain(of_services.filter_map(|service| service.package.as_deref())).collect();
        let packages = packages.into_iter().map(Value::from).collect();
        let _ = writeln!(
            self.recipe,
            "[base]\n{key} = {}\npackages = {}",
            quoted(&system.codename),
            Value::Array(packages)
        );
        let of_others = survey.packages.iter().filter(|package| !is_of_the_distribution(&package.maintainer));
        for package in of_others {
            let (name, version, maintainer) = (&package.name, &package.version, &package.maintainer);
            self.questions.push(format!(
                "`{name}` {version} is of {maintainer}: from which repository, or which .deb, does it come?"
            ));
        }
    }

    fn users(&mut self, users: &[User]) {
        if users.is_empty() {
            return;
        }
        let lines: Vec<String> = users.iter().map(add_user).collect();
        let run = Value::from(lines.join("\n")).to_string();
        let _ = writeln!(self.recipe, "\n[[step]]\nname = \"users that were made by hand\"\nrun = {run}");
    }

    fn copies(&mut self, survey: &Survey) {
        let mut by_owner: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let configured = survey.changed.iter().filter(|changed| changed.change != Change::Missing);
        for changed in configured {
            match changed.secret {
                Some(secret) => self.ask_of_a_secret(&changed.path, secret.words()),
                None => by_owner.entry("root").or_default().push(changed.path.clone()),
            }
            if changed.change == Change::Content {
                self.questions
                    .push(format!("{} of package {} was changed by hand: why?", changed.path, changed.package));
            }
        }
        for unowned in &survey.unowned {
            if self.is_part_of_the_server(unowned) {
                by_owner.entry(&unowned.user).or_default().push(unowned.path.clone());
            }
        }
        for (user, paths) in by_owner {
            let _ = writeln!(
                self.recipe,
                "\n[[step]]\nname = {}\ncopy = {}\nto = \"/\"",
                quoted(&format!("files of {user}")),
                quoted(&format!("files/{user}/"))
            );
            if user != "root" {
                let _ = writeln!(self.recipe, "owner = {}", quoted(user));
            }
            self.files.extend(paths.into_iter().map(|from| DraftFile { to: format!("files/{user}{from}"), from }));
        }
    }

    /// Whether it is copied; if not, a question says why.
    fn is_part_of_the_server(&mut self, unowned: &Unowned) -> bool {
        let path = &unowned.path;
        let is_unit = path.starts_with("/etc/systemd/system/") || path.starts_with("/etc/cron");
        if is_unit {
            return false;
        }
        if let Some(secret) = unowned.secret {
            self.ask_of_a_secret(path, secret.words());
            return false;
        }
        let inside = match unowned.kind {
            Kind::Special => return false,
            Kind::Directory { files } => format!(" ({}, {})", counted(files, "file"), ByteSize::bytes(unowned.bytes)),
            _ => String::new(),
        };
        if DATA.iter().any(|data| path.starts_with(data)) || format!("{path}/") == "/srv/" {
            self.questions
                .push(format!("{path}{inside}: is it data (a volume of the server) or a part of it (a `copy` step)?"));
            return false;
        }
        if unowned.bytes > MOST {
            self.questions
                .push(format!("{path}{inside}: it is too large to be copied unasked; is it a part of the server?"));
            return false;
        }
        true
    }

    fn ask_of_a_secret(&mut self, path: &str, why: &str) {
        self.questions.push(format!(
            "{path} was not copied: {why}. Give its secret as a `secret` key of `[config]`, if it is needed"
        ));
    }

    fn service(&mut self, service: &EnabledService, listening: Option<&[Listening]>) {
        let ports = understood(service).map_or_else(Vec::new, |found| ports_of(&found.service.command[0], listening));
        let Some(ServiceText { text, questions, .. }) = service_text(service, &ports) else {
            self.questions
                .push(format!("{}: its file {} could not be understood; what starts it?", service.unit, service.path));
            return;
        };
        let _ = write!(self.recipe, "\n{text}");
        self.questions.extend(questions);
    }

    fn writable(&mut self, survey: &Survey) {
        let (text, questions) = writable_text(serving(survey));
        if !text.is_empty() {
            let _ = write!(self.recipe, "\n{text}");
        }
        self.questions.extend(questions);
    }

    fn tests(&mut self, survey: &Survey, listening: Option<&[Listening]>) {
        let proposals = serving(survey).filter_map(|service| service.proposal.as_ref());
        let programs = proposals.filter_map(|proposal| proposal.service.command.first());
        let ports = programs.flat_map(|program| ports_of(program, listening));
        for port in ports.collect::<BTreeSet<_>>() {
            let _ = writeln!(self.recipe, "\n[[test]]\nname = \"port {port}\"\nport = {port}");
        }
    }

    fn ask_of_the_rest(&mut self, survey: &Survey) {
        for changed in survey.changed.iter().filter(|changed| changed.change == Change::Missing) {
            self.questions.push(format!(
                "{} of package {} was removed: should a `remove` step do the same?",
                changed.path, changed.package
            ));
        }
        for run in &survey.scheduled {
            self.questions.push(format!(
                "{} runs `{}` as {} ({}): Kiln's servers have no cron; who runs it, and where?",
                run.path, run.command, run.user, run.when
            ));
        }
        for unread in &survey.unread {
            self.questions.push(format!("{} was not looked at: {}", unread.path, unread.reason));
        }
    }
}

fn is_of_the_distribution(maintainer: &str) -> bool {
    ["debian.org", "ubuntu.com", "debian.net"].iter().any(|domain| maintainer.to_lowercase().contains(domain))
        || maintainer.contains("Debian")
}

fn add_user(user: &User) -> String {
    let groups = match &user.groups[..] {
        [] => String::new(),
        groups => format!(" --groups {}", groups.join(",")),
    };
    let User { name, uid, gid, home, shell, .. } = user;
    format!(
        "groupadd --gid {gid} {name} || true\nuseradd --uid {uid} --gid {gid} --home-dir {home} --shell {shell}{groups} {name}"
    )
}

/// The TCP ports that a program listens on; programs are compared by their file names, as links lead to them.
fn ports_of(program: &str, listening: Option<&[Listening]>) -> Vec<u16> {
    let file = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let of = |found: &&Listening| {
        found.protocol == "tcp" && found.program.as_deref().is_some_and(|path| file(path) == file(program))
    };
    let mut ports: Vec<u16> = listening.unwrap_or_default().iter().filter(of).map(|found| found.port).collect();
    ports.dedup();
    ports
}
