//! Packages with the real programs: `dpkg-deb` makes them, `gpg` signs their repository, `kiln` installs them over Debian.

mod bare;
mod files;
mod flat;
mod repository;
mod services;
mod world;
mod wrong;
