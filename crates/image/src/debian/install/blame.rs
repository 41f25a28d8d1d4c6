//! Which script of which package failed, from what dpkg says of it (`maintscript_run` in dpkg's `src/main/script.c`).

/// A script that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Blamed {
    pub(super) package: String,
    pub(super) script: String,
    /// The last lines before dpkg noticed.
    pub(super) output: String,
}

/// Lines of a failed script that are shown.
const SHOWN: usize = 15;

/// What the preamble of the configuration says where a `preinst` fails.
const PREINST: (&str, &str) = ("the preinst script of package ", " failed");

/// The first script that failed, in the end of an output.
pub(super) fn found(output: &str) -> Option<Blamed> {
    let lines: Vec<&str> = output.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let before = &lines[..at];
        if let Some(package) = line.strip_prefix(PREINST.0).and_then(|rest| rest.strip_suffix(PREINST.1)) {
            return Some(blame(package, "preinst", before));
        }
        if line.starts_with("dpkg: error processing package ") {
            return lines.get(at + 1).and_then(|reason| of_dpkg(reason, before));
        }
    }
    None
}

/// ` installed app package post-installation script subprocess returned error exit status 3`
fn of_dpkg(reason: &str, before: &[&str]) -> Option<Blamed> {
    let rest = reason.trim_start().strip_prefix("installed ").or_else(|| reason.trim_start().strip_prefix("new "))?;
    let (package, rest) = rest.split_once(" package ")?;
    let (script, _) = rest.split_once(" script ")?;
    let script = match script {
        "pre-installation" => "preinst",
        "post-installation" => "postinst",
        "pre-removal" => "prerm",
        "post-removal" => "postrm",
        other => other,
    };
    Some(blame(package, script, before))
}

/// What dpkg wrote as it began with the package is the beginning of what the script wrote.
fn blame(package: &str, script: &str, before: &[&str]) -> Blamed {
    let begins = format!("Setting up {package} (");
    let start = before.iter().rposition(|line| line.starts_with(&begins)).map_or(0, |at| at + 1);
    let own = &before[start..];
    let output = own[own.len().saturating_sub(SHOWN)..].join("\n");
    Blamed { package: package.to_owned(), script: script.to_owned(), output }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_the_script_that_failed_is_found_with_what_it_said_last() {
        let dpkg = "step `x` failed with exit code 1; the end of its output:\nSetting up libc6 (2.36-9) ...\nSetting up app (1.0) ...\n\
                    migrating\nno database\ndpkg: error processing package app (--configure):\n \
                    installed app package post-installation script subprocess returned error exit status 3\nErrors were \
                    encountered while processing:\n app\n";
        let blamed = found(dpkg).expect("a script failed");
        assert_eq!((blamed.package.as_str(), blamed.script.as_str()), ("app", "postinst"));
        assert_eq!(blamed.output, "migrating\nno database");
        let preinst =
            found("checking\nno memory\nthe preinst script of package app failed\n").expect("a script failed");
        assert_eq!((preinst.script.as_str(), preinst.output.as_str()), ("preinst", "checking\nno memory"));
    }

    #[test]
    fn unit_what_dpkg_itself_refuses_is_no_scripts_fault() {
        let other = "dpkg: error processing package app (--configure):\n dependency problems - leaving unconfigured\n";
        assert_eq!(found(other), None);
        assert_eq!(found("dpkg: error processing package app (--configure):"), None);
        assert_eq!(found(""), None);
    }
}
