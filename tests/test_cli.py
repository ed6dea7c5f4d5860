"""The command `kft`: help, exit codes, JSON, and text of users that a terminal would obey."""

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest
import typer
from huggingface_hub import constants
from models import esm2, strings
from typer.testing import CliRunner

import kft
from kft.arguments import check_integer
from kft.cli import app, output, spelling

pytestmark = pytest.mark.once

VERBS = [command.callback.__name__ for command in app.registered_commands]


def shell(*arguments, status=0):
    done = CliRunner().invoke(app, [str(x) for x in arguments])
    assert done.exit_code == status, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "a.csv"
    proteins = strings([9] * 45, "ACDEFGHIKLMNPQRSTVWY")
    y = [x.count("K") + 0.25 for x in proteins]
    split = ["train", "valid", "test"] * 15
    pd.DataFrame({"sequence": proteins, "y": y, "split": split}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return kft.backbones.save(esm2(), tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def arguments(table, backbone):
    options = ["--backbone", backbone, "--strategy", "linear_probe", "--no-baselines"]
    return ["finetune", table, "--target", "y", *options]


@pytest.fixture(scope="module")
def run(arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    done = shell(*arguments, "--out", folder, "--json")
    return folder, json.loads(done.stdout), done.stderr


# Help -------------------------------------------------------------------------------------------


def test_the_help_of_a_verb_fits_a_screen_and_has_an_example():
    assert "finetune" in VERBS and len(VERBS) >= 9
    for verb in VERBS:
        lines = shell(verb, "--help").output.splitlines()
        assert len(lines) <= 40, verb
        assert any(line.strip().startswith(f"Example: kft {verb}") for line in lines), verb


def test_help_and_version_do_not_import_keras():
    program = (
        "import sys; sys.argv[:] = ['kft', OPTION]\n"
        "from kft.cli import app\n"
        "try: app()\n"
        "finally: assert not {'keras', 'numpy'} & set(sys.modules)"
    )
    for option, expected in (("'--help'", "kft finetune"), ("'--version'", kft.__version__)):
        done = subprocess.run(
            [sys.executable, "-c", program.replace("OPTION", option)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert expected in done.stdout


def test_there_is_completion_for_the_shell():
    assert "--install-completion" in shell("--help").output


# Arguments in messages --------------------------------------------------------------------------

COMMANDS = typer.main.get_command(app).commands
PARAMETERS = [(verb, x) for verb, command in COMMANDS.items() for x in command.params]


@pytest.mark.parametrize(("verb", "parameter"), PARAMETERS, ids=lambda x: getattr(x, "name", x))
def test_messages_name_options_as_they_are_typed(verb, parameter):
    """As the library's own checks word it, for each option and argument of each verb."""
    name = parameter.name
    with spelling.spelled(COMMANDS[verb]):
        with pytest.raises(ValueError) as error:
            check_integer(name, 0)
        message = spelling.as_options(f"kft: {error.value}")
        shown = parameter.opts[0]
        if parameter.param_type_name == "argument" or parameter.help == "The same as FILE.":
            shown = next(x for x in ("FILE", "RUN", "OUT", name.upper()) if x in message)
        assert message == f"kft: {shown} must be an integer of at least 1, received 0."
        assert spelling.as_options(f"set `{name}=` or `{name}`.") == f"set {shown} or {shown}."
        assert spelling.as_options(f"set {name}='a b'; x") == f"set {shown} 'a b'; x"
        if getattr(parameter, "is_flag", False):
            off = parameter.secondary_opts[0] if parameter.secondary_opts else f"no {shown}"
            told = spelling.as_options(f"with {name}=True or {name}=False it")
            assert told == f"with {shown} or {off} it"


def test_values_in_messages_are_typed_as_for_the_shell():
    assert spelling.as_options("leave split=None out") == "leave split=None out"  # no verb runs
    with spelling.spelled(COMMANDS["finetune"]):
        assert spelling.as_options("leave split=None out") == "leave no --split out"
        assert spelling.as_options("give inputs=['a b', 'c'].") == "give --inputs 'a b' --inputs c."


@pytest.mark.parametrize(
    "text",
    [
        "the target is far; column 'max_length' of a/max_length.csv",
        "write kft.load('x', weights=False, data=data) or kft.compare(a)",
        "see kft.comparison, kft.embed_all and kft.report.x",
        "KERAS_BACKEND=torch",
    ],
)
def test_words_data_and_code_in_messages_stay(text):
    with spelling.spelled(COMMANDS["finetune"]):
        assert spelling.as_options(text) == text


@pytest.mark.parametrize("verb", spelling.VERBS)
def test_functions_in_messages_are_verbs(verb):
    assert verb in VERBS and callable(getattr(kft, verb))
    with spelling.spelled(COMMANDS["finetune"]):
        assert spelling.as_options(f"see kft.{verb}.") == f"see kft {verb}."


def test_errors_and_notes_are_spelled_for_the_shell(tmp_path):
    rows = [f"MKTAYIAKQ{x},{i}" for i, x in enumerate("ACDEFGHIKLMNPQRSTVWY")]
    (tmp_path / "a.csv").write_text("\n".join(["sequence,y", *rows, "MKT,"]))
    given = ("finetune", tmp_path / "a.csv", "--out", tmp_path / "run", "--dry-run")
    assert "or --dropna to leave" in shell(*given, status=1).stderr
    given += ("--dropna", "--split", "random")
    assert "kft: --batch-size must" in shell(*given, "--batch-size", 0, status=1).stderr
    said = shell(*given).stdout
    assert "set --task classification if" in said and "name another in --inputs." in said
    with spelling.spelled(COMMANDS["finetune"]):
        told = spelling.as_options("missing=('-1', 'x y') marks them, or missing=() if not")
    assert told == "--missing -1 --missing 'x y' marks them, or --missing '' if not"


# Results and exit codes -------------------------------------------------------------------------


def test_a_run_from_the_shell(run, table, tmp_path):
    folder, summary, said = run
    assert (summary["status"], summary["strategy"]) == ("finished", "linear_probe")
    assert summary["data"]["records"] == {"train": 15, "valid": 15, "test": 15}
    assert "'split' was taken for the split" in said
    out = tmp_path / "out.csv"
    shell("predict", folder, table, "--out", out)
    assert pd.read_csv(out).columns.tolist() == [
        "sequence", "y", "split", "predicted_y", "predicted_y_low", "predicted_y_high",
    ]  # fmt: skip
    text = shell("evaluate", folder).stdout
    assert "linear_probe" in text and "Spearman" in text
    scores = json.loads(shell("evaluate", folder, table, "--json").stdout)
    assert set(scores["RMSE"]) == {"value", "low", "high"}


def test_a_dry_run_writes_nothing(arguments, tmp_path):
    plan = json.loads(shell(*arguments, "--out", tmp_path / "run", "--dry-run", "--json").stdout)
    assert plan["seconds"] > 0 and plan["memory"] > 0 and plan["trainable"] < plan["parameters"]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_comparison_writes_nothing(table, backbone, tmp_path):
    given = ["compare", table, "--backbone", backbone, "--strategy", "head_only", "--seeds", "2"]
    given += ["--epochs", "1", "--out", tmp_path / "out", "--dry-run"]
    plan = json.loads(shell(*given, "--json").stdout)
    assert plan["trainings"] == 2 and plan["memory"] > 0
    assert list(plan["each"]) == ["head_only", "from_scratch", "head_only, shuffled labels"]
    assert plan["seconds"] == sum(plan["each"].values()) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("data", "received 'ampp'. Did you mean 'amp'? kft explore FILE looks at a file of your"),
        ("explore", "kft: FILE is 'ampp', which is neither a file or folder"),
    ],
)
def test_unknown_names_of_data_are_told_in_the_words_of_the_shell(verb, said):
    message = shell(verb, "ampp", status=output.FAILED).stderr
    assert said in message and "amp, cells" in message and "kft.data." not in message


def test_what_describes_is_printed_as_text_and_as_json(table, backbone):
    found = json.loads(shell("explore", table, "--target", "y", "--json").stdout)
    assert found["records"] == 45 and isinstance(found["findings"], list)
    assert "45 records" in shell("explore", table).stdout
    assert "amp" in json.loads(shell("data", "--json").stdout)
    assert json.loads(shell("data", "digits", "--json").stdout)["records"]["test"]
    counts = json.loads(shell("params", backbone, "--strategy", "lora", "--json").stdout)
    assert counts["total"] == counts["trainable"] + counts["frozen"] > 0
    about = json.loads(shell("doctor", "--no-hub", "--json").stdout)
    assert about["backend"] in about["versions"] and about["hub_reachable"] is None
    assert "OMP_NUM_THREADS" in shell("doctor", "--no-hub").stdout


class Missing(BaseHTTPRequestHandler):
    """A server that has nothing."""

    def do_HEAD(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


def test_the_doctor_asks_the_hub_and_an_error_of_it_is_an_answer(monkeypatch):
    def reachable():
        return json.loads(shell("doctor", "--json").stdout)["hub_reachable"]

    with ThreadingHTTPServer(("127.0.0.1", 0), Missing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        assert reachable() is True
        server.shutdown()
    assert reachable() is False  # nobody is there any more
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert re.search("hub +not reachable", shell("doctor").stdout)


def test_a_report_is_written_next_to_the_run_or_where_it_is_wanted(run, tmp_path):
    folder = run[0]
    said = shell("report", folder, "--out", tmp_path / "a.md", "--title", "Mine", "--json").stdout
    assert json.loads(said) == {"written": str(tmp_path / "a.md")}
    assert "Mine" in (tmp_path / "a.md").read_text().split("\n")[0]
    assert "Written: " in shell("report", folder, "--question", "Is it so?").stdout
    assert "Is it so?" in (folder / "report.html").read_text()
    (folder / "report.html").unlink()


def test_exit_codes(tmp_path, table, run, monkeypatch):
    assert "kft: FILE is" in shell("finetune", tmp_path / "no.csv", status=output.FAILED).stderr
    shell("finetune", status=2)
    shell("finetune", table, "--rank", "4", status=2)
    shell("finetune", table, "--option", "rank", status=2)
    assert "There is no run" in shell("evaluate", tmp_path, status=1).stderr

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(kft.finetuning, "plan", interrupt)
    said = shell("finetune", table, "--dry-run", status=output.INTERRUPTED).stderr
    assert "interrupted. The same command continues" in said


def test_embeddings_have_one_place_to_go(table, backbone, tmp_path):
    out = tmp_path / "a.npz"
    shell("embed", table, "--out", out, "--backbone", backbone)
    assert out.exists()
    shell("embed", table, out, "--out", out, "--backbone", backbone, status=2)


# Hostile text -----------------------------------------------------------------------------------

HOSTILE = "a\x1b[31mb\x07\u202ec"


def test_hostile_headers_and_file_names_do_not_reach_the_terminal(tmp_path):
    path = tmp_path / f"{HOSTILE}.csv"
    pd.DataFrame({"sequence": strings([9] * 12), HOSTILE: [*"ab"] * 6, "y": [1, 2] * 6}).to_csv(
        path, index=False
    )
    outputs = [
        shell("explore", path, "--target", HOSTILE),
        shell("finetune", path, "--inputs", HOSTILE, "--out", tmp_path / "r", status=1),
        shell("predict", path, path, "--out", tmp_path / "o.csv", status=1),
    ]
    for done in outputs:
        assert not {"\x1b", "\x07", "\u202e"} & set(done.output), done.output
    assert "\\x1b[31mb" in outputs[0].output


# Mutations ----------------------------------------------------------------------------------------


def test_mutations_of_a_table_and_of_all_single_residues(backbone, tmp_path):
    pd.DataFrame({"mutant": ["K2R", "=A4V"], "note": ["=1+1", "x"]}).to_csv(
        tmp_path / "mine.csv", index=False
    )
    options = ("--backbone", backbone, "--out", tmp_path / "out.csv")
    done = shell("mutations", "MKTAY", *options, "--table", tmp_path / "mine.csv", status=1)
    assert "'=A4V' is not a known notation" in done.stderr
    given = ("--table", tmp_path / "mine.csv", "--skip-invalid")
    assert "1 of 2 rows are not scored" in shell("mutations", "MKTAY", *options, *given).stderr
    found = pd.read_csv(tmp_path / "out.csv")
    assert found.note.tolist() == ["'=1+1", "x"] and found.score.isna().tolist() == [False, True]
    done = shell("mutations", "MKTAY", *options, "--json", "--offset", 10)
    assert json.loads(done.stdout)["rows"] == 5 * 19
    assert pd.read_csv(tmp_path / "out.csv").mutant[0] == "M11L"
    shell("mutations", "MKTAY", "--backbone", backbone, "--out", "out.txt", status=2)


# Search -------------------------------------------------------------------------------------------


def test_search_keeps_an_index_and_writes_hits(backbone, tmp_path):
    database, queries = tmp_path / "database.fasta", tmp_path / "queries.csv"
    database.write_text(">=a\nMKTAY\n>b\nGSSGSS\n>c\nWWPWW\n")
    queries.write_text("id,sequence\nq,GSSGSS\n")
    options = ("--backbone", backbone, "-k", 2)
    printed = shell("search", queries, database, *options).stdout.splitlines()
    assert printed[0].split() == ["query", "rank", "hit", "similarity", "same"]
    assert printed[1].split() == ["q", "1", "b", "1.000", "True"] and len(printed) == 3
    kept = ("--index", tmp_path / "index", "--transform", "none")
    found = json.loads(shell("search", queries, database, *options, *kept, "--json").stdout)
    assert len(found) == 2 and found[0]["hit"] == "b" and found[0]["hit_record"] == 1
    out = tmp_path / "new" / "hits.csv"
    shell("search", queries, tmp_path / "index", out, "--backbone", backbone)
    assert set(pd.read_csv(out).hit) == {"'=a", "b", "c"}
    done = shell("search", queries, database, *options, "--index", tmp_path / "index", status=1)
    assert "its transform is 'none', received None" in done.stderr
    done = shell("search", queries, database, "--backbone", backbone, "-k", 4, status=1)
    assert "k must be at most 3" in done.stderr
    shell("search", queries, database, "hits.txt", *options, status=2)
    shell("search", queries, tmp_path / "index", *options, "--layer", 1, status=2)
