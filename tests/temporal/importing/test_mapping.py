"""What is wrong with a mapping is said at once, all of it, with lines, before any row is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox.model.errors import ConfigurationError
from outbox_temporal.importing.mapping import load
from tests.support.running import fetch
from tests.temporal.importing.engine import MAPPING, moved, written

START = '[start]\nworkflow = "W"\nworkflow_id = "w-{id}"\n'
SOURCE = '[source]\ntable = "t"\nidentity = "id"\n'
GOOD = SOURCE + START


def faults(directory: Path, text: str) -> list[str]:
    """The mapping's faults, without the file's name."""
    path = written(directory, text, empty=" ; ")
    with pytest.raises(ConfigurationError) as raised:
        load(path)
    assert all(fault.startswith(f"{path}:") for fault in raised.value.faults)
    return [fault.removeprefix(f"{path}:") for fault in raised.value.faults]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("name = 'A B'\n" + GOOD, 1, "name is 'A B': use 1 to 100 small letters"),
        ("sorce = 1\n" + GOOD, 1, "sorce is not known here: did you mean source?"),
        (START, 1, "source.identity is missing"),
        ("[source]\ntable = 't'\nidentity = ''\n" + START, 3, "source.identity is ''"),
        ("[source]\nidentity = 'id'\n" + START, 1, "query or table is missing"),
        (SOURCE + "query = 'q.sql'\n" + START, 1, "query and table exclude each other"),
        ("[source]\nidentity = 'id'\nquery = 'absent.sql'\n" + START, 3, "absent.sql cannot be read: No such file"),
        ("[source]\nidentity = 'id'\nquery = 'empty.sql'\n" + START, 3, "empty.sql is empty"),
        (SOURCE + "jsn = []\n" + START, 4, "jsn is not known here: did you mean json?"),
        (SOURCE + "json = 'context'\n" + START, 4, "source.json is 'context'"),
        (SOURCE, 1, "[start] is missing"),
        (SOURCE + "[start]\nworkflow = 'W'\n", 4, "workflow_id is missing"),
        (SOURCE + "[start]\nworkflow_id = 'x'\n", 4, "start_workflow needs workflow"),
        (GOOD + "run_timeout = 'soon'\n", 7, "run_timeout is 'soon': write a duration"),
        (GOOD + "task_que = 'q'\n", 7, "task_que is not known here: did you mean task_queue?"),
        (GOOD + "signal = 's'\n", 7, "signal means nothing to the start of a workflow"),
        (GOOD + "topic = 't'\n", 7, "topic is not known here: it belongs to [message]"),
        (GOOD + "[start.memo]\nx = '{'\n", 8, "memo.x: "),
        (GOOD + "[start.memo]\noutbox_message_id = 'x'\n", 8, "memo.outbox_message_id is the outbox's own"),
        (GOOD + "summary = '{key}'\n", 7, "{key} names no column: one of that name is {payload.key}"),
        (GOOD + "summary = '{headers.x}'\n", 7, "{headers.x} names no column"),
        (GOOD + "[message]\npriority = 10\n", 8, "message.priority is 10: input should be less than or equal to 9"),
        (GOOD + "[message]\ntenant = '{'\n", 8, "tenant: "),
        (GOOD + "[input]\ncolumns = 'all'\n", 8, "input.columns is 'all': write '*' for all, or a list of columns"),
        (GOOD + "[input]\ncolumn = 'a'\ncolumns = '*'\n", 9, "column is the whole input, and excludes columns"),
        (GOOD + "[input.fields]\nx = '{a:3}'\n", 8, "fields.x: {a} takes no format"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    found = faults(tmp_path, text)
    assert len(found) == 1, found
    assert found[0].startswith(f"{line}: ")
    assert says in found[0]


def test_all_faults_are_reported_at_once_in_the_files_order(tmp_path: Path) -> None:
    text = SOURCE + "x = 1\n" + START + "run_timeout = -1\n[message]\ntenat = 'a'\n[input]\ncolumns = 1\n"
    assert [fault.split(":")[0] for fault in faults(tmp_path, text)] == ["4", "8", "10", "12"]


def test_a_mapping_is_named_after_its_file_and_its_topic_after_the_mapping(tmp_path: Path) -> None:
    mapping = load(written(tmp_path, GOOD))
    assert (mapping.name, mapping.topic) == ("old", "import.old")
    assert mapping.route.target.on_duplicate == "reject"


async def test_columns_that_the_source_has_not_are_reported_all_at_once_with_their_lines(
    database: str, tmp_path: Path
) -> None:
    await fetch(database, "create table t (id int, context json)")
    text = '[source]\ntable = "t"\nidentity = "idd"\njson = ["contxt"]\n' + START.replace(
        "{id}", "{number}-{context.a}"
    )
    path = written(
        tmp_path, text + "[message]\ntenant = '{org}'\n[input]\ncolumns = ['x']\nfields.y = {z = ['{zz}']}\n"
    )
    with pytest.raises(ConfigurationError) as raised:
        await moved(database, path)
    assert raised.value.faults == (
        f"{path}:3: idd is not a column of the source: did you mean id?",
        f"{path}:4: contxt is not a column of the source: did you mean context?",
        f"{path}:7: number is not a column of the source: use id, context",
        f"{path}:9: org is not a column of the source: use id, context",
        f"{path}:11: x is not a column of the source: use id, context",
        f"{path}:12: zz is not a column of the source: use id, context",
    )
    assert await fetch(database, "select from outbox.import") == []


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("select 1 as id; select 2 as id", "syntax error"),
        ("selct 1 as id", 'look at its columns: syntax error at or near "1"'),
        ("select 1 as id from absent", 'relation "absent" does not exist'),
        ("select 1 as id, 2 as a, 3 as a", "the source has the column a twice: rename one"),
        ("select json '1' as id", "could not identify an ordering operator for type json"),
        ("delete from outbox.message returning 1 as id", "syntax error"),
        ("select outbox.new_message_id() as id, nextval('outbox.rule_id')", "cannot execute nextval() in a read-only"),
    ],
)
async def test_a_query_that_cannot_be_run_is_one_line(database: str, tmp_path: Path, query: str, says: str) -> None:
    path = written(tmp_path, MAPPING.replace("table = 'engine.\"WorkflowInstance\"'", "query = 'q.sql'"), q=query)
    path.write_text(path.read_text().replace('json = ["context"]\n', ""))
    with pytest.raises(ConfigurationError) as raised:
        await moved(database, path)
    assert says in str(raised.value)
    assert f"{path}:4" in str(raised.value)


async def test_a_table_that_is_not_there_is_one_line(database: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"old\.toml:4: engine\.\"WorkflowInstance\": find the table: schema"):
        await moved(database, written(tmp_path))
