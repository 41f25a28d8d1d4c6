//! What is wrong with a trust policy is shown with its line, the offending text and what to write instead.

use kiln_model::trust::Rules;
use proptest::prelude::*;

fn shown(pieces: &[&str]) -> String {
    let whole = |piece: &&str| {
        let found = Rules::parse(piece, "trust.toml").err().unwrap_or_else(|| panic!("this is accepted:\n{piece}"));
        found.render(false, 100)
    };
    pieces.iter().map(whole).collect::<Vec<_>>().join("--------\n")
}

#[test]
fn unit_what_is_wrong_with_a_trust_policy() {
    insta::assert_snapshot!(shown(&[
        "",
        "rule = []\n",
        "rule = \"ci\"\n",
        "[[rules]]\nimages = [\"*\"]\n",
        "[[rule]]\nimage = [\"*\"]\nkeys = \"ci\"\n",
        "[[rule]]\nimages = []\nkeys = []\n",
        "[[rule]]\nimages = [\"Shop\", \"a*b\", \"-*\", 1]\nkeys = [\"CI\", \"ci\", \"ci\"]\n",
        "[[rule]]\nimages = [\"*\"]\nkeys = [\"ci\"]\nthreshold = 2\n",
        "[[rule]]\nimages = [\"*\"]\nkeys = [\"ci\"]\nthreshold = 0\nsuites = [\"sha256:12\"]\nmax_age = \"1s\"\n",
        "[[rule]]\nimages = [\"web-*\"]\nkeys = [\"ci\"]\n\n[[rule]]\nimages = [\"till\", \"web-shop\"]\nkeys = [\"ops\"]\n",
    ]));
}

proptest! {
    #[test]
    fn unit_any_text_is_read_without_panic(text in "(\\[\\[rule\\]\\]\n|images = |keys = |threshold = |[\\[\\]\"*a-z0-9,= \n-]){0,40}") {
        drop(Rules::parse(&text, "trust.toml"));
    }
}
