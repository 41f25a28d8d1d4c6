//! A recipe's files, held in memory.

use std::collections::BTreeMap;

use kiln_model::{
    diagnostic::Diagnostics,
    recipe::{FileKind, FileProblem, Recipe, RecipeFiles},
};

/// A recipe's directory in memory: a path that ends with `/` is a directory.
pub struct Files(BTreeMap<&'static str, &'static [u8]>);

impl Default for Files {
    fn default() -> Self {
        Self(BTreeMap::from([
            ("page/", &b""[..]),
            ("page/index.html", b"<h1>Hello</h1>"),
            ("keys/archive.gpg", b"\x99\x01"),
            ("tests/check.sh", b"#!/bin/sh\nexit 0\n"),
            ("tests/plain.txt", b"exit 0\n"),
            ("tests/goss.yaml", b"matching:\n  system: {content: '{{ .Vars.a }}{{ .Env.OS }}', matches: 1debian}\n"),
            ("tests/vars.yaml", b"a: 1\n"),
            ("tests/test_web.py", b"def test_page(host):\n    pass\n"),
            ("tests/binary", b"#!\xff\xfe"),
            ("app.conf.j2", b"workers {{ config.workers }};\n"),
            ("broken.j2", b"a\n{% if %}\n"),
            ("stray.j2", b"{{ config.worker }}\n"),
            ("app.deb", b"!<arch>\n"),
            ("page.deb/", b""),
            ("keys/vendor.asc", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"),
            ("pipe", b""),
            ("away", b""),
        ]))
    }
}

impl RecipeFiles for Files {
    fn kind(&self, path: &str) -> Result<Option<FileKind>, FileProblem> {
        let path = path.trim_start_matches("./").trim_end_matches('/');
        match path {
            "pipe" => Ok(Some(FileKind::Other)),
            "away" | "away.deb" => Err(FileProblem::Outside),
            _ if self.0.contains_key(format!("{path}/").as_str()) => Ok(Some(FileKind::Directory)),
            _ => Ok(self.0.contains_key(path).then_some(FileKind::File)),
        }
    }
    fn read(&self, path: &str, _limit: u64) -> Result<Vec<u8>, FileProblem> {
        let found = self.0.get(path).map(|bytes| bytes.to_vec());
        found.ok_or(FileProblem::Unreadable { reason: "no such file".to_owned() })
    }
    fn list(&self, path: &str) -> Result<Vec<String>, FileProblem> {
        let within = |file: &&str| file.strip_prefix(path)?.strip_prefix('/').map(str::to_owned);
        Ok(self.0.keys().filter_map(within).filter(|name| !name.is_empty()).collect())
    }
}

impl Files {
    /// With one more file.
    #[allow(dead_code)]
    pub fn with(mut self, path: &'static str, content: &'static str) -> Self {
        self.0.insert(path, content.as_bytes());
        self
    }
}

/// Reads a recipe called `image.toml` beside these files.
#[allow(dead_code)]
pub fn recipe_with(text: &str, files: &Files) -> Result<Recipe, Diagnostics> {
    Recipe::parse(text, "image.toml", files)
}

/// Reads a recipe called `image.toml` beside the usual files.
#[allow(dead_code)]
pub fn recipe(text: &str) -> Result<Recipe, Diagnostics> {
    Recipe::parse(text, "image.toml", &Files::default())
}
