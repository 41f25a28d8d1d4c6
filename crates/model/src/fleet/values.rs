//! The values that a group's image is given, and the variables of the caller among them.

use std::collections::BTreeMap;

use super::{Fleet, Group};
use crate::{
    config::{ConfigKey, ConfigSchema, ConfigSource, ConfigValue, Password, Registry},
    id::GroupName,
};

type Sources = BTreeMap<ConfigKey, ConfigSource>;

/// A variable that a fleet takes a value from is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} takes `{key}` from the variable `{variable}`, which is not set", .group.as_ref().map_or("`[config]` of the fleet".to_owned(), |group| format!("group `{group}`")))]
pub struct NoVariable {
    /// The group; none for `[config]` of the fleet.
    pub group: Option<GroupName>,
    /// The key, or `binding.field`.
    pub key: String,
    /// The variable.
    pub variable: String,
}

impl Fleet {
    /// The values of a group whose image has these keys: the group's own, and below them those that the fleet gives to every
    /// group. An image without a key of the fleet does not get it; a key that the group gives itself is never left out.
    pub fn values_of(&self, group: &Group, schema: &ConfigSchema) -> Sources {
        let shared = self.config.iter().filter(|(key, _)| schema.0.contains_key(*key));
        shared.chain(&group.config).map(|(key, source)| (key.clone(), source.clone())).collect()
    }

    /// Gives every group whose image is known its values of `[config]`, so that each group says all of its own.
    pub fn spread<'a>(&mut self, schema_of: impl Fn(&GroupName) -> Option<&'a ConfigSchema>) {
        let known = |name: &GroupName, group: &Group| schema_of(name).map(|schema| self.values_of(group, schema));
        let all: Vec<_> =
            self.groups.iter().filter_map(|(name, group)| Some((name.clone(), known(name, group)?))).collect();
        for (name, values) in all {
            self.groups.entry(name).and_modify(|group| group.config = values);
        }
    }

    /// The fleet with the values of variables in their place. `find` knows the variables.
    pub fn with_variables(mut self, find: &dyn Fn(&str) -> Option<String>) -> Result<Self, NoVariable> {
        put(&mut self.config, None, "", find)?;
        for (name, group) in &mut self.groups {
            put(&mut group.config, Some(name), "", find)?;
            for (binding, fields) in &mut group.bindings {
                put(fields, Some(name), &format!("{binding}."), find)?;
            }
        }
        Ok(self)
    }
}

fn put(
    sources: &mut Sources,
    group: Option<&GroupName>,
    prefix: &str,
    find: &dyn Fn(&str) -> Option<String>,
) -> Result<(), NoVariable> {
    for (key, source) in sources {
        replace(source, find).map_err(|variable| NoVariable {
            group: group.cloned(),
            key: format!("{prefix}{key}"),
            variable,
        })?;
    }
    Ok(())
}

/// Puts the value of a variable in its place, or says which variable is not there.
fn replace(source: &mut ConfigSource, find: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    let value = |name: &String| find(name).ok_or_else(|| name.clone());
    match source {
        ConfigSource::Env(name) => *source = ConfigSource::Literal(ConfigValue::Text(value(name)?)),
        ConfigSource::Zookeeper(Registry { login: Some(login), .. })
        | ConfigSource::Etcd(Registry { login: Some(login), .. }) => {
            if let Password::Env(name) = &login.password {
                login.password = Password::Text(value(name)?);
            }
        }
        _ => {}
    }
    Ok(())
}
