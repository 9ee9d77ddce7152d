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
        Entry("ls", "modelreg.cli.models", "List models."),
        Entry("show", "modelreg.cli.models", "Show a model."),
        Entry("versions", "modelreg.cli.models", "List the versions of a model, the latest first."),
        Entry("rm", "modelreg.cli.models", "Delete models and their artifacts."),
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
