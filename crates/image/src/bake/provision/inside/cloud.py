"""Applies a user-data file with cloud-init, and tells Kiln, as one line of JSON behind a record separator (RFC 7464), what each
module did and what of the file is not for an image.

usage: cloud.py USER-DATA TEMPLATES
"""

import json
import os
import re
import sys

user_data, templates = sys.argv[1:]
home = "/run/kiln/home"
os.environ["CLOUD_CFG"] = home + "/cloud.cfg"

try:
    import yaml
    from cloudinit import settings as places

    # Else what the image has in /etc/cloud counts as well: it makes a user that nobody asks for.
    places.CLOUD_CONFIG = os.environ["CLOUD_CFG"]
    from cloudinit.cmd import main
    from cloudinit.config import schema
    from cloudinit.reporting import handlers
except ModuleNotFoundError:
    print('\x1e{"event":"missing"}', flush=True)
    sys.exit(127)

LONGEST = 2000
STAGES = (["init"], ["modules", "--mode=config"], ["modules", "--mode=final"])
# What the modules that run read; all else of a user-data file is for a server that starts.
KEYS = {
    "apt": "apt-configure",
    "bootcmd": "bootcmd",
    "ca_certs": "ca-certs",
    "ca-certs": "ca-certs",
    "chpasswd": "set-passwords",
    "groups": "users-groups",
    "locale": "locale",
    "locale_configfile": "locale",
    "package_reboot_if_required": "package-update-upgrade-install",
    "package_update": "package-update-upgrade-install",
    "package_upgrade": "package-update-upgrade-install",
    "packages": "package-update-upgrade-install",
    "password": "set-passwords",
    "runcmd": "scripts-user",
    "timezone": "timezone",
    "user": "users-groups",
    "users": "users-groups",
    "write_files": "write-files",
}
# Those that would do something though the file does not ask for it.
ASKED = ("locale",)
MODULES = {
    "cloud_init_modules": ["bootcmd", "write-files", "ca-certs", "users-groups"],
    "cloud_config_modules": ["locale", "set-passwords", "apt-configure", "timezone", "runcmd"],
    "cloud_final_modules": ["package-update-upgrade-install", "write-files-deferred", "scripts-user"],
}
# What is worth a person's time.
LOGGING = """
[loggers]
keys=root
[handlers]
keys=all
[formatters]
keys=plain
[logger_root]
level=WARNING
handlers=all
[handler_all]
class=StreamHandler
formatter=plain
args=(sys.stderr,)
[formatter_plain]
format=%(message)s
"""
with open(user_data, errors="replace") as source:
    text = source.read()


def say(record):
    sys.stdout.flush()
    sys.stdout.write("\x1e" + json.dumps(record) + "\n")
    sys.stdout.flush()


def line_of(key):
    found = re.search(r"^[\"']?%s[\"']?\s*:" % re.escape(str(key)), text, re.MULTILINE)
    return {"line": text.count("\n", 0, found.start()) + 1} if found else {}


def tell(state, what, where, message=None):
    record = {"event": "result", "state": state, "what": what[:LONGEST], "file": user_data}
    say(dict(record, message=message[:LONGEST] if message else None, **where))


def wrong(message, where):
    tell("failed", "the user-data", where, message)
    sys.exit(1)


def checked():
    """The keys of the file, if it is a cloud-config."""
    if not text.startswith("#cloud-config"):
        return {}
    try:
        values = yaml.safe_load(text) or {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        wrong(str(error.problem), {"line": mark.line + 1} if mark else {})
    if not isinstance(values, dict):
        wrong("it is no mapping of keys to values", {})
    try:
        schema.validate_cloudconfig_schema(values, strict=True)
    except schema.SchemaValidationError as error:
        first = (error.schema_errors or [("", str(error))])[0]
        path, message = (first.path, first.message) if hasattr(first, "path") else first
        wrong("%s: %s" % (path, message) if path else message, line_of(re.split(r"[.\[]", path)[0]))
    return values


class Tell(handlers.ReportingHandler):
    def __init__(self, **_):
        super().__init__()

    def publish_event(self, event):
        stage, _, module = event.name.partition("/config-")
        if not module:
            return
        where = next((line_of(key) for key, reader in KEYS.items() if reader == module and key in values), None)
        if where is None:
            return
        if event.event_type == "start":
            tell("begun", module, where)
        elif event.event_type == "finish":
            tell("changed" if event.result == "SUCCESS" else "failed", module, where, event.description)


def configure():
    """cloud-init's own configuration: this file and nothing of a cloud, and all that it remembers in memory."""
    wanted = {KEYS[key] for key in values if key in KEYS}
    runs = lambda module: module not in ASKED or module in wanted
    settings = {
        "apt": {"preserve_sources_list": True},
        "datasource": {"None": {"metadata": {"instance-id": "kiln"}, "userdata_raw": text}},
        "datasource_list": ["None"],
        "def_log_file": home + "/cloud-init.log",
        "log_cfgs": [LOGGING],
        "network": {"config": "disabled"},
        "reporting": {"kiln": {"type": "kiln"}},
        "system_info": {
            "distro": "ubuntu" if "ID=ubuntu" in open("/etc/os-release").read().split() else "debian",
            "paths": {"cloud_dir": home + "/cloud", "run_dir": home + "/cloud-run", "templates_dir": templates},
        },
    }
    settings.update({stage: [module for module in modules if runs(module)] for stage, modules in MODULES.items()})
    with open(os.environ["CLOUD_CFG"], "w") as configuration:
        json.dump(settings, configuration)


values = checked()
configure()
for key in values:
    if key not in KEYS and key != "merge_how":
        place = "%s:%s %s" % (os.path.basename(user_data), line_of(key).get("line", "?"), key)
        say({"event": "told", "what": "server", "name": place})
handlers.available_handlers.register_item("kiln", Tell)
code = 0
for stage in STAGES:
    # Each stage is one run of the program: it keeps what it knows in files.
    child = os.fork()
    if child == 0:
        try:
            ended = main.main(["cloud-init"] + stage)
        except SystemExit as end:
            ended = end.code
        sys.stdout.flush()
        os._exit(1 if ended else 0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or code
sys.exit(code)
