"""The object table: events in, effects out."""

import pytest
from alpyne_grid.nodes.data import events as ev
from alpyne_grid.nodes.data import rules
from alpyne_grid.nodes.data.in_flight import WrongEvent
from alpyne_grid.nodes.data.object_table import (
    FENCES_KEPT_MS,
    SUPERSEDED_KEPT_MS,
    SWEEP_ROWS,
    TOMBSTONES_KEPT_MS,
    ObjectTable,
)
from alpyne_grid.nodes.data.records import (
    Cutoffs,
    Descriptor,
    Found,
    JobEpoch,
    KeepContainer,
    ObjectKey,
    ObjectRecord,
    Publish,
    RaiseFence,
    Refresh,
    Staged,
    Swept,
    Usage,
    Version,
)

from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages.data import Expect

OWNER = b"o" * 32
BOX = b"c" * 16
KEY = ObjectKey(OWNER, BOX, "a/b")
OTHER = ObjectKey(OWNER, BOX, "other")
JOB = b"j" * 16
NOW = 1_000_000_000_000


def version(counter: int, writer: bytes = b"w" * 16) -> Version:
    return Version(counter, writer)


def record(counter: int, size: int = 5, sha: bytes = b"1" * 32) -> ObjectRecord:
    return ObjectRecord(version(counter), size, sha, False, NOW)


def tombstone(counter: int) -> ObjectRecord:
    return ObjectRecord(version(counter), deleted=True, modified_at_ms=NOW)


def staged(size: int = 5, sha: bytes = b"1" * 32) -> Staged:
    return Staged(OWNER, size, sha, "handle")


def only(effects: list[ev.Effect], kind: type[ev.Effect]) -> ev.Effect:
    """Return the single effect, which must be of ``kind``."""
    assert [type(effect) for effect in effects] == [kind]
    return effects[0]


class Table:
    """A table that is driven step by step."""

    def __init__(self, used: Usage = Usage()) -> None:  # noqa: B008 - a constant
        self.table = ObjectTable({OWNER: used})

    def __call__(self, event: ev.Event) -> list[ev.Effect]:
        return self.table.handle(event, NOW)

    def ask_put(
        self,
        op: int,
        counter: int,
        current: ObjectRecord | None = None,
        fence: tuple[int, int] = (0, 0),
        **more: object,
    ) -> list[ev.Effect]:
        """Ask and load."""
        key = more.pop("key", KEY)
        size = more.pop("size", 5)
        epoch = more.get("epoch")
        asked = ev.PutAsked(op, key, version(counter), size, **more)  # type: ignore[arg-type]
        job = epoch.job_id if isinstance(epoch, JobEpoch) else b""
        assert self(asked) == [ev.Load(op, asked.key, job)]
        return self(ev.Loaded(op, Found(True, current, fence)))

    def ask_delete(
        self, op: int, counter: int, current: ObjectRecord | None = None, **more: object
    ) -> list[ev.Effect]:
        asked = ev.DeleteAsked(op, KEY, version(counter), **more)  # type: ignore[arg-type]
        self(asked)
        return self(ev.Loaded(op, Found(True, current)))

    def put(self, op: int, counter: int, current: ObjectRecord | None = None) -> None:
        """Put from the beginning to the answer."""
        self.ask_put(op, counter, current)
        store = only(self(ev.BodyStaged(op, staged())), ev.Store)
        assert isinstance(store, ev.Store)
        only(self(ev.Stored(store.batch)), ev.Answer)


def refused(effects: list[ev.Effect]) -> ErrorCode:
    refuse = only(effects, ev.Refuse)
    assert isinstance(refuse, ev.Refuse)
    return refuse.code


# ---- puts ----


def test_table_answers_put_only_after_stored() -> None:
    table = Table()
    assert table(ev.PutAsked(1, KEY, version(1), 5)) == [ev.Load(1, KEY, b"")]
    assert table(ev.Loaded(1, Found(True))) == [ev.Receive(1)]
    publish = Publish(KEY, record(1), None, staged(), NOW)
    assert table(ev.BodyStaged(1, staged())) == [ev.Store(1, (publish,))]
    assert table(ev.Stored(1)) == [ev.Answer(1, record(1))]
    assert table.table.in_flight == 0


def test_table_refuses_put_when_container_is_unknown() -> None:
    table = Table()
    table(ev.PutAsked(1, KEY, version(1), 5))
    effects = table(ev.Loaded(1, Found(False)))
    assert refused(effects) is ErrorCode.NOT_FOUND
    assert table.table.in_flight == 0


def test_table_supersedes_the_current_version_when_a_higher_one_is_put() -> None:
    table = Table()
    table.ask_put(1, 4, record(3))
    store = only(table(ev.BodyStaged(1, staged())), ev.Store)
    assert store == ev.Store(1, (Publish(KEY, record(4), record(3), staged(), NOW),))


@pytest.mark.parametrize("current", [record(5), record(4, sha=b"2" * 32, size=6), tombstone(5)])
def test_table_refuses_put_when_version_is_not_above_the_current(current: ObjectRecord) -> None:
    effects = Table().ask_put(1, 4, current)
    assert refused(effects) is ErrorCode.VERSION_CONFLICT
    assert str(current.version) in effects[0].text  # type: ignore[union-attr]


def test_table_orders_versions_of_one_counter_by_writer() -> None:
    lower, higher = b"a" * 16, b"b" * 16
    current = ObjectRecord(version(4, lower), 5, b"2" * 32)
    table = Table()
    table(ev.PutAsked(1, KEY, version(4, higher), 5))
    assert table(ev.Loaded(1, Found(True, current))) == [ev.Receive(1)]
    table(ev.PutAsked(2, OTHER, version(4, b"0" * 16), 6))
    assert refused(table(ev.Loaded(2, Found(True, current)))) is ErrorCode.VERSION_CONFLICT


def test_table_answers_a_repeated_put_and_keeps_the_fresh_bytes_when_they_are_the_same() -> None:
    table = Table(Usage(5, 2))
    assert table.ask_put(1, 4, record(4)) == [ev.Receive(1)]
    assert table(ev.BodyStaged(1, staged())) == [ev.Store(1, (Refresh(KEY, staged()),))]
    assert table(ev.Stored(1)) == [ev.Answer(1, record(4))]
    assert table.table.used_bytes(OWNER) == 5


def test_table_refuses_a_repeated_put_and_discards_its_bytes_when_they_differ() -> None:
    table = Table()
    table.ask_put(1, 4, record(4))
    other = staged(sha=b"2" * 32)
    refuse, discard = table(ev.BodyStaged(1, other))
    assert refused([refuse]) is ErrorCode.VERSION_CONFLICT
    assert discard == ev.Discard(other)


# ---- conditions ----

ABSENT = ev.Condition(Expect.ABSENT)
AT_3 = ev.Condition(Expect.VERSION, version(3))


@pytest.mark.parametrize(
    ("condition", "current"),
    [(ABSENT, None), (ABSENT, tombstone(3)), (AT_3, record(3)), (AT_3, tombstone(3))],
)
def test_table_receives_put_when_its_condition_holds(
    condition: ev.Condition, current: ObjectRecord | None
) -> None:
    assert Table().ask_put(1, 9, current, condition=condition) == [ev.Receive(1)]


@pytest.mark.parametrize(
    ("condition", "current"),
    [(ABSENT, record(3)), (AT_3, None), (AT_3, record(4)), (AT_3, tombstone(4))],
)
def test_table_refuses_put_and_delete_when_the_condition_fails(
    condition: ev.Condition, current: ObjectRecord | None
) -> None:
    for effects in (
        Table().ask_put(1, 9, current, condition=condition),
        Table().ask_delete(1, 9, current, condition=condition),
    ):
        assert refused(effects) is ErrorCode.VERSION_CONFLICT


def test_table_answers_a_repeated_put_when_its_condition_held_the_first_time() -> None:
    assert Table().ask_put(1, 4, record(4), condition=ABSENT) == [ev.Receive(1)]


# ---- several at once ----


def test_table_stores_one_put_after_another_when_they_meet_on_one_key() -> None:
    table = Table()
    table.ask_put(1, 1)
    table.ask_put(2, 2)
    assert table(ev.BodyStaged(1, staged())) != []
    assert table(ev.BodyStaged(2, staged(6))) == []
    answer, store = table(ev.Stored(1))
    assert answer == ev.Answer(1, record(1))
    publish = Publish(KEY, record(2, 6), record(1), staged(6), NOW)
    assert store == ev.Store(2, (publish,))
    assert table(ev.Stored(2)) == [ev.Answer(2, record(2, 6))]


def test_table_refuses_the_waiting_put_when_the_one_before_it_is_higher() -> None:
    table = Table()
    table.ask_put(1, 7)
    table.ask_put(2, 2)
    table(ev.BodyStaged(1, staged()))
    table(ev.BodyStaged(2, staged(6)))
    answer, refuse, discard = table(ev.Stored(1))
    assert answer == ev.Answer(1, record(7))
    assert refused([refuse]) is ErrorCode.VERSION_CONFLICT
    assert discard == ev.Discard(staged(6))
    assert table.table.in_flight == 0


def test_table_stores_the_waiting_put_when_the_one_before_it_could_not_be_stored() -> None:
    table = Table()
    table.ask_put(1, 7)
    table.ask_put(2, 2)
    table(ev.BodyStaged(1, staged()))
    table(ev.BodyStaged(2, staged(6)))
    refuse, discard, store = table(ev.StoreFailed(1))
    assert refused([refuse]) is ErrorCode.STORE_FAILED
    assert discard == ev.Discard(staged())
    assert store == ev.Store(2, (Publish(KEY, record(2, 6), None, staged(6), NOW),))


def test_table_judges_by_what_it_stored_when_a_later_load_saw_less() -> None:
    table = Table()
    table.ask_put(1, 7)
    table(ev.BodyStaged(1, staged()))
    table(ev.PutAsked(2, KEY, version(7), 9))
    table(ev.Stored(1))
    assert refused(table(ev.Loaded(2, Found(True, None)))) is ErrorCode.VERSION_CONFLICT


def test_table_stores_puts_side_by_side_when_their_keys_differ() -> None:
    table = Table()
    table.ask_put(1, 1)
    table.ask_put(2, 1, key=OTHER)
    only(table(ev.BodyStaged(1, staged())), ev.Store)
    only(table(ev.BodyStaged(2, staged())), ev.Store)


# ---- deletes ----


def test_table_writes_a_tombstone_when_an_object_is_deleted() -> None:
    table = Table(Usage(5, 2))
    store = only(table.ask_delete(1, 4, record(3)), ev.Store)
    assert store == ev.Store(1, (Publish(KEY, tombstone(4), record(3), None, NOW),))
    assert table(ev.Stored(1)) == [ev.Answer(1, tombstone(4))]
    assert table.table.used_bytes(OWNER) == 5  # the superseded version is kept for an hour


def test_table_writes_a_tombstone_when_there_is_nothing_to_delete() -> None:
    only(Table().ask_delete(1, 4), ev.Store)


def test_table_answers_a_repeated_delete_without_storing() -> None:
    assert Table().ask_delete(1, 4, tombstone(4)) == [ev.Answer(1, tombstone(4))]


@pytest.mark.parametrize("current", [record(4), record(5), tombstone(5)])
def test_table_refuses_delete_when_version_is_not_above_the_current(current: ObjectRecord) -> None:
    assert refused(Table().ask_delete(1, 4, current)) is ErrorCode.VERSION_CONFLICT


# ---- quota ----


def test_table_reserves_quota_when_a_put_begins_and_gives_it_back_when_it_is_abandoned() -> None:
    table = Table(Usage(10, 1))
    assert table.ask_put(1, 1, size=60, quota_bytes=100) == [ev.Receive(1)]
    effects = table.ask_put(2, 1, size=31, quota_bytes=100, key=OTHER)
    assert refused(effects) is ErrorCode.QUOTA_EXCEEDED
    assert table(ev.Abandoned(1)) == []
    assert table.ask_put(3, 1, size=31, quota_bytes=100, key=OTHER) == [ev.Receive(3)]


def test_table_takes_a_put_that_fills_the_quota_exactly_and_no_byte_more() -> None:
    table = Table(Usage(95, 1))
    assert table.ask_put(1, 1, size=5, quota_bytes=100) == [ev.Receive(1)]
    table(ev.BodyStaged(1, staged()))
    table(ev.Stored(1))
    assert table.table.used_bytes(OWNER) == 100
    effects = table.ask_put(2, 1, size=1, quota_bytes=100, key=OTHER)
    assert refused(effects) is ErrorCode.QUOTA_EXCEEDED
    assert table.ask_put(3, 1, size=0, quota_bytes=100, key=OTHER) == [ev.Receive(3)]


def test_table_has_no_limit_when_the_quota_is_0() -> None:
    assert Table(Usage(1 << 50, 1)).ask_put(1, 1, size=1 << 40) == [ev.Receive(1)]


def test_table_gives_the_reservation_back_when_the_put_could_not_be_stored() -> None:
    table = Table()
    table.ask_put(1, 1, size=5, quota_bytes=5)
    table(ev.BodyStaged(1, staged()))
    table(ev.StoreFailed(1))
    assert table.table.used_bytes(OWNER) == 0
    assert table.ask_put(2, 1, size=5, quota_bytes=5) == [ev.Receive(2)]


def test_table_refuses_more_names_than_one_account_may_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = Table(Usage(0, rules.ROWS_MAX))
    assert refused(table.ask_put(1, 1)) is ErrorCode.QUOTA_EXCEEDED
    assert refused(table.ask_delete(2, 1)) is ErrorCode.QUOTA_EXCEEDED
    only(table.ask_delete(3, 2, record(1)), ev.Store)  # what frees is never refused


# ---- fencing ----


def epoch(allocation: int, attempt: int) -> JobEpoch:
    return JobEpoch(JOB, allocation, attempt)


def test_table_stores_the_fence_when_a_higher_execution_is_seen() -> None:
    table = Table()
    effects = table.ask_put(1, 1, epoch=epoch(2, 1))
    fence = RaiseFence(OWNER, epoch(2, 1), NOW)
    assert effects == [ev.Store(1, (fence,)), ev.Receive(1)]
    assert table(ev.Stored(1)) == []
    publish = Publish(KEY, record(1), None, staged(), NOW)
    assert table(ev.BodyStaged(1, staged())) == [ev.Store(2, (publish, fence))]


def test_table_counts_jobs_that_wrote_as_names_and_refuses_more_of_them_when_full() -> None:
    table = Table(Usage(0, rules.ROWS_MAX - 1))
    for op, stored in ((1, (0, 0)), (2, (1, 1))):  # a higher execution of a job adds nothing
        table.ask_put(op, op, fence=stored, epoch=epoch(op, 1))
        table(ev.Stored(op))
        table(ev.Abandoned(op))
    assert table.table._accounts.used(OWNER) == Usage(0, rules.ROWS_MAX)
    other = JobEpoch(b"k" * 16, 1, 1)
    effects = table.ask_put(3, 3, epoch=other, key=OTHER)
    assert refused(effects) is ErrorCode.QUOTA_EXCEEDED  # before a fence is stored


@pytest.mark.parametrize("lower", [(1, 9), (2, 1)])
def test_table_refuses_writes_of_a_job_below_the_stored_fence(lower: tuple[int, int]) -> None:
    effects = Table().ask_put(1, 1, fence=(2, 2), epoch=epoch(*lower))
    assert refused(effects) is ErrorCode.FENCED
    effects = Table().ask_delete(1, 9, epoch=epoch(0, 0))
    only(effects, ev.Store)


def test_table_fences_a_put_in_flight_when_a_higher_execution_comes() -> None:
    table = Table()
    table.ask_put(1, 1, epoch=epoch(1, 1))
    table.ask_put(2, 1, epoch=epoch(2, 1), key=OTHER)
    refuse, discard = table(ev.BodyStaged(1, staged()))
    assert refused([refuse]) is ErrorCode.FENCED
    assert discard == ev.Discard(staged())


def test_table_takes_writes_of_the_same_execution_and_of_other_jobs() -> None:
    table = Table()
    assert table.ask_put(1, 1, fence=(2, 2), epoch=epoch(2, 2)) == [ev.Receive(1)]
    other = JobEpoch(b"k" * 16, 1, 1)
    assert table.ask_put(2, 1, epoch=other, key=OTHER)[-1] == ev.Receive(2)


# ---- containers ----


def descriptor(counter: int, copies: int = 1) -> Descriptor:
    return Descriptor(BOX, "box", copies, (b"m" * 32,), version(counter))


def ask_container(
    table: Table, op: int, counter: int, current: Descriptor | None
) -> list[ev.Effect]:
    asked = ev.ContainerAsked(op, OWNER, descriptor(counter))
    assert table(asked) == [ev.LoadContainer(op, OWNER, BOX)]
    return table(ev.ContainerLoaded(op, current))


@pytest.mark.parametrize("current", [None, descriptor(1)])
def test_table_keeps_a_descriptor_when_it_is_new_or_higher(current: Descriptor | None) -> None:
    table = Table()
    keep = KeepContainer(OWNER, descriptor(2), current is None)
    assert ask_container(table, 1, 2, current) == [ev.Store(1, (keep,))]
    assert table(ev.Stored(1)) == [ev.AnswerContainer(1, descriptor(2))]


@pytest.mark.parametrize("current", [descriptor(2), descriptor(3, 5)])
def test_table_answers_with_the_descriptor_it_has_when_that_is_not_lower(
    current: Descriptor,
) -> None:
    assert ask_container(Table(), 1, 2, current) == [ev.AnswerContainer(1, current)]


# ---- lost clients, defects, retention ----


def test_table_says_nothing_to_a_client_that_left_while_its_put_was_stored() -> None:
    table = Table()
    table.ask_put(1, 1)
    table(ev.BodyStaged(1, staged()))
    assert table(ev.Abandoned(1)) == []
    assert table(ev.Stored(1)) == []
    assert table.table.used_bytes(OWNER) == 5
    assert table(ev.Abandoned(1)) == []


def test_table_raises_with_the_story_when_an_event_has_no_place() -> None:
    table = Table()
    table.ask_put(1, 1)
    with pytest.raises(WrongEvent, match="receiving; its last events: PutAsked, Loaded, Loaded"):
        table(ev.Loaded(1, Found(True)))
    with pytest.raises(WrongEvent, match="in flight"):
        table(ev.PutAsked(1, KEY, version(1), 5))
    with pytest.raises(WrongEvent, match="no batch"):
        table(ev.Stored(99))
    with pytest.raises(WrongEvent, match="no operation"):
        table(ev.BodyStaged(99, staged()))


def test_table_sweeps_until_nothing_is_left() -> None:
    table = Table(Usage(100, 10))
    cutoffs = Cutoffs(NOW - SUPERSEDED_KEPT_MS, NOW - TOMBSTONES_KEPT_MS, NOW - FENCES_KEPT_MS)
    assert table(ev.SweepDue()) == [ev.Sweep(cutoffs, SWEEP_ROWS)]
    swept = Swept({OWNER: Usage(40, 4)}, True)
    assert table(ev.SweepDone(swept)) == [ev.Sweep(cutoffs, SWEEP_ROWS)]
    assert table.table.used_bytes(OWNER) == 60
    assert table(ev.SweepDone(Swept({}, False))) == []
