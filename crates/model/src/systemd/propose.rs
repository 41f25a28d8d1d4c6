//! What a service unit becomes in a recipe.

use std::{collections::BTreeMap, time::Duration};

use super::Unit;
use crate::manifest::{Service, Stop};

/// Programs whose units put them into the background, and how they stay in front.
const IN_FRONT: &[(&str, &[&str])] = &[
    ("/usr/sbin/nginx", &["/usr/sbin/nginx", "-g", "daemon off;"]),
    ("/usr/sbin/apachectl", &["/usr/sbin/apachectl", "-D", "FOREGROUND"]),
    ("/usr/sbin/apache2ctl", &["/usr/sbin/apache2ctl", "-D", "FOREGROUND"]),
];
/// Keys that ask for a directory, and where it is (`systemd.exec(5)`).
const DIRECTORIES: [(&str, &str, Kept); 3] = [
    ("StateDirectory", "/var/lib", Kept::Perhaps),
    ("LogsDirectory", "/var/log", Kept::No),
    ("CacheDirectory", "/var/cache", Kept::No),
];
/// Keys that Kiln's isolation makes needless, or that only concern systemd.
const NEEDLESS: &[&str] = &[
    "BusName",
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "Delegate",
    "ExecReload",
    "ExecStop",
    "FileDescriptorStoreMax",
    "GuessMainPID",
    "IgnoreSIGPIPE",
    "KillMode",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "NoNewPrivileges",
    "NotifyAccess",
    "OOMScoreAdjust",
    "PIDFile",
    "PrivateDevices",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "RemainAfterExit",
    "RestartPreventExitStatus",
    "RestartSec",
    "Restart",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "RuntimeDirectory",
    "RuntimeDirectoryMode",
    "Slice",
    "StandardError",
    "StandardInput",
    "StandardOutput",
    "StartLimitBurst",
    "StartLimitInterval",
    "SuccessExitStatus",
    "SyslogIdentifier",
    "SystemCallArchitectures",
    "SystemCallErrorNumber",
    "SystemCallFilter",
    "TasksMax",
    "TimeoutSec",
    "TimeoutStartSec",
    "UMask",
    "UtmpIdentifier",
    "WatchdogSec",
];

/// Whether what is in a directory is to outlive servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// It goes with the server.
    No,
    /// A person must say.
    Perhaps,
}

/// A service for a recipe, with what its unit says and Kiln cannot decide.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Proposal {
    /// The service; `command` is empty if the unit has none.
    pub service: Service,
    /// Directories that it writes.
    pub writable: Vec<(String, Kept)>,
    /// What a person must decide, each in a sentence.
    pub questions: Vec<String>,
}

/// What a service unit becomes.
pub fn propose(unit: &Unit) -> Proposal {
    let mut questions = Vec::new();
    let command = command(unit, &mut questions);
    let service = Service {
        user: unit.last("Service", "User").unwrap_or("root").to_owned(),
        working_directory: unit
            .last("Service", "WorkingDirectory")
            .map_or("/", |path| path.trim_start_matches('-'))
            .to_owned(),
        environment: environment(unit, &mut questions),
        stop: stop(unit),
        ..Service::new(command)
    };
    ask(unit, &mut questions);
    Proposal { service, writable: writable(unit), questions }.sayable()
}

fn writable(unit: &Unit) -> Vec<(String, Kept)> {
    let under = |(key, above, kept): &(&str, &'static str, Kept)| {
        let names = unit.all("Service", key).iter().flat_map(|value| value.split_whitespace());
        let (above, kept) = (*above, *kept);
        let paths = names.map(move |name| (format!("{above}/{}", name.split(':').next().unwrap_or(name)), kept));
        paths.collect::<Vec<_>>()
    };
    DIRECTORIES.iter().flat_map(under).collect()
}

fn command(unit: &Unit, questions: &mut Vec<String>) -> Vec<String> {
    let starts = unit.all("Service", "ExecStart");
    if starts.len() > 1 {
        questions.push(format!("it has {} commands one after another: only the last is proposed", starts.len()));
    }
    let Some(line) = starts.last() else {
        questions.push("it has no ExecStart: what starts it?".to_owned());
        return Vec::new();
    };
    let line = line.trim_start_matches(['-', '@', ':', '+', '!']);
    let words: Vec<String> = match shell_words::split(line) {
        Ok(words) => words.into_iter().filter(|word| !word.starts_with('$')).collect(),
        Err(_) => line.split_whitespace().map(str::to_owned).collect(),
    };
    if words.is_empty() {
        questions.push(format!("`{line}` starts nothing: what does?"));
    }
    if line.contains('$') {
        questions.push(format!("`{line}` uses variables, which are left out"));
    }
    if line.contains('%') {
        questions.push(format!("`{line}` has specifiers of systemd (`%i`, …): write what they stand for"));
    }
    in_front(unit, words, questions)
}

/// A program that goes into the background looks to PID 1 as if it had ended.
fn in_front(unit: &Unit, words: Vec<String>, questions: &mut Vec<String>) -> Vec<String> {
    if unit.last("Service", "Type") != Some("forking") {
        return words;
    }
    let known = IN_FRONT.iter().find(|(program, _)| words.first().is_some_and(|word| word == program));
    if let Some((_, command)) = known {
        return command.iter().map(|&word| word.to_owned()).collect();
    }
    questions.push("it goes into the background (Type=forking): give it the option that keeps it in front".to_owned());
    words
}

fn environment(unit: &Unit, questions: &mut Vec<String>) -> BTreeMap<String, String> {
    for file in unit.all("Service", "EnvironmentFile") {
        questions.push(format!("its variables come from {}: write those that it needs", file.trim_start_matches('-')));
    }
    let lines = unit.all("Service", "Environment").iter();
    let words = lines.flat_map(|line| shell_words::split(line).unwrap_or_default());
    words.filter_map(|word| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

fn stop(unit: &Unit) -> Stop {
    let usual = Service::new(Vec::new()).stop;
    let grace = unit.last("Service", "TimeoutStopSec").and_then(|text| text.trim_end_matches('s').parse().ok());
    Stop {
        signal: unit.last("Service", "KillSignal").map_or(usual.signal, str::to_owned),
        grace: grace.filter(|&seconds: &u64| (1..=3600).contains(&seconds)).map_or(usual.grace, Duration::from_secs),
    }
}

/// What is neither taken nor needless.
fn ask(unit: &Unit, questions: &mut Vec<String>) {
    for key in ["ExecStartPre", "ExecStartPost"] {
        for line in unit.all("Service", key) {
            questions
                .push(format!("{key}={line}: a step of the bake, a service with `restart = \"once\"`, or needless?"));
        }
    }
    let taken = [
        "CacheDirectory",
        "Environment",
        "EnvironmentFile",
        "ExecStart",
        "ExecStartPost",
        "ExecStartPre",
        "KillSignal",
        "LogsDirectory",
        "StateDirectory",
        "TimeoutStopSec",
        "Type",
        "User",
        "WorkingDirectory",
    ];
    let unknown = unit.keys("Service").filter(|key| {
        let harmless = key.starts_with("Protect") || key.starts_with("Limit") || key.starts_with("Restrict");
        !harmless && !taken.contains(key) && !NEEDLESS.contains(key)
    });
    for key in unknown {
        questions.push(format!("{key}={}: Kiln does nothing of it", unit.last("Service", key).unwrap_or_default()));
    }
    if let Some(group) = unit.last("Service", "Group").filter(|group| unit.last("Service", "User") != Some(group)) {
        questions.push(format!("its group is {group}: a server's service has its user's groups"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Proposal {
        propose(&Unit::parse(&format!("[Service]\n{text}")).unwrap())
    }

    #[test]
    fn unit_a_plain_unit_becomes_a_service_without_questions() {
        let found = of(
            "Type=exec\nUser=app\nWorkingDirectory=/opt/app\nEnvironment=\"A=b c\" D=e\nTimeoutStopSec=20\nKillSignal=SIGINT\n\
             StateDirectory=app\nProtectSystem=strict\nRestart=always\nExecStart=/opt/app/run --name 'two words'",
        );
        assert_eq!(found.service.command, ["/opt/app/run", "--name", "two words"]);
        assert_eq!((found.service.user.as_str(), found.service.working_directory.as_str()), ("app", "/opt/app"));
        assert_eq!(found.service.environment["A"], "b c");
        assert_eq!(found.service.environment["D"], "e");
        assert_eq!((found.service.stop.signal.as_str(), found.service.stop.grace.as_secs()), ("SIGINT", 20));
        assert_eq!(found.writable, [("/var/lib/app".to_owned(), Kept::Perhaps)]);
        assert_eq!(found.questions, [""; 0]);
    }

    #[test]
    fn unit_a_program_that_goes_into_the_background_is_kept_in_front_or_asked_about() {
        let nginx = of("Type=forking\nExecStart=/usr/sbin/nginx -g 'daemon on;'");
        assert_eq!(
            (nginx.service.command, nginx.questions.len()),
            (vec!["/usr/sbin/nginx".into(), "-g".into(), "daemon off;".into()], 0)
        );
        let other = of("Type=forking\nExecStart=-/usr/sbin/old -d");
        assert_eq!(other.service.command, ["/usr/sbin/old", "-d"]);
        assert!(other.questions[0].contains("Type=forking"), "{:?}", other.questions);
    }

    #[test]
    fn unit_what_a_recipe_cannot_say_is_left_out_and_asked() {
        let found = of(
            "ExecStart=bin/x\nUser=%i\nWorkingDirectory=~\nEnvironment=1=2 A=b\nKillSignal=9\nStateDirectory=a/b a ../c\nCacheDirectory=x",
        );
        assert_eq!((found.service.command.len(), found.service.user.as_str()), (0, "root"));
        assert_eq!((found.service.working_directory.as_str(), found.service.stop.signal.as_str()), ("/", "SIGTERM"));
        assert_eq!(found.service.environment.keys().collect::<Vec<_>>(), ["A"]);
        let written: Vec<_> = found.writable.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(written, ["/var/lib/a", "/var/cache/x"]);
        for asked in ["`bin/x`", "user is `%i`", "`~`", "`1`", "`9`", "/var/lib/../c"] {
            assert!(found.questions.iter().any(|question| question.contains(asked)), "{asked}: {:?}", found.questions);
        }
        assert!(of("ExecStart=-").questions[0].contains("starts nothing"));
    }

    #[test]
    fn unit_what_cannot_be_decided_is_asked() {
        let found = of(
            "EnvironmentFile=-/etc/default/x\nExecStartPre=/bin/check\nExecStart=/usr/sbin/x -n %i $OPTS\nGroup=www\nDynamicUser=yes",
        );
        assert_eq!(found.service.command, ["/usr/sbin/x", "-n", "%i"]);
        for asked in ["/etc/default/x", "/bin/check", "$OPTS", "%i", "group is www", "DynamicUser"] {
            assert!(found.questions.iter().any(|question| question.contains(asked)), "{asked}: {:?}", found.questions);
        }
        assert!(of("").questions[0].contains("no ExecStart"));
    }
}
