"""The command `mreg`.

`main` is a click group. The modules of the commands, and with them gRPC, are imported when a command runs, so that the
help and the completion are fast.
"""

from __future__ import annotations

from modelreg.cli._frame import Entry, MainGroup

# Name, module and attribute of the command, and the first line of its help: a list of all commands must not import them
# all. tests/client/test_cli_frame.py holds this against the commands.
_SECTIONS = {
    "Models": [
        Entry("push", "modelreg.cli.pushing", "Push a file or a folder, and register it as a model."),
        Entry("pull", "modelreg.cli.artifacts", "Download the artifact of a model, complete and verified."),
        Entry("ls", "modelreg.cli.models", "List models."),
        Entry("show", "modelreg.cli.models", "Show a model."),
        Entry("versions", "modelreg.cli.models", "List the versions of a model, the latest first."),
        Entry("groups", "modelreg.cli.groups", "List model groups: the names, each with its latest version."),
        Entry("group", "modelreg.cli.groups", "Show, change and delete what all versions of a model have in common."),
        Entry("edit", "modelreg.cli.editing", "Change the metadata of a model."),
        Entry("rm", "modelreg.cli.models", "Delete models and their artifacts."),
        Entry("cat", "modelreg.cli.artifacts", "Write a file of an artifact to stdout."),
        Entry("verify", "modelreg.cli.artifacts", "Check the stored bytes of an artifact against its SHA-256."),
        Entry("diff", "modelreg.cli.comparison", "Show how models differ from the first of them."),
        Entry("lineage", "modelreg.cli.comparison", "Show what a model was made from."),
    ],
    "Aliases": [
        Entry("promote", "modelreg.cli.aliases", "Point an alias to a model."),
        Entry("rollback", "modelreg.cli.aliases", "Point an alias to its previous target, or to an earlier one."),
        Entry("alias", "modelreg.cli.aliases", "List aliases, delete them, and show their history."),
    ],
    "Changes": [
        Entry("log", "modelreg.cli.changes", "Show the audit log, the newest event first."),
        Entry("watch", "modelreg.cli.changes", "Print changes as they happen."),
    ],
    "Access": [
        Entry("login", "modelreg.cli.access", "Sign in to a registry, and make its profile the active one."),
        Entry("logout", "modelreg.cli.access", "Delete the token of a profile."),
        Entry("whoami", "modelreg.cli.access", "Show who you are at the registry, and what you may do."),
        Entry("profile", "modelreg.cli.profiles", "List, choose and remove the profiles of `mreg login`."),
    ],
    "This machine": [
        Entry("uploads", "modelreg.cli.uploads", "List and cancel uploads that are not completed."),
        Entry("cache", "modelreg.cli.cache", "Show and prune the cache of pulled artifacts."),
        Entry("completion", "modelreg.cli.completion", "Print the completion script of a shell."),
    ],
}

main = MainGroup(
    sections=_SECTIONS,
    help="""Push, find, promote and pull models of a Model Registry.

    A model is named by a reference: NAME means its latest version, NAME:VERSION one version, NAME@ALIAS what an alias
    points to, each also after PROJECT/. The id of a model works, too.

    \b
      mreg push vad.onnx vad:6.2.3 --metric f1=0.91
      mreg promote vad:6.2.3 production
      mreg pull vad@production --to models/
    """,
)
