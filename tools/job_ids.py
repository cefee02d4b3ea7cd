"""Job ids as people read and type them: `3f9c-17`, the start of the journal's id and the counter.

A job's id has 8 bytes of its journal and 8 bytes of a counter. Accepted is any start of the journal
in hexadecimal with the counter in decimal behind a dash, or any start of the whole id in
hexadecimal, as long as one job alone fits.
"""

from collections.abc import Iterable, Mapping, Sequence

from alpyne_proto.errors import AlpyneError, ErrorCode

_SHORTEST = 4  # hexadecimal digits of the journal, even where fewer would do
_JOURNAL = 8  # bytes


class JobNotFound(AlpyneError):
    """No job fits the id that was typed."""

    code = ErrorCode.NOT_FOUND


class JobAmbiguous(AlpyneError):
    """Several jobs fit the id that was typed."""

    code = ErrorCode.BAD_REQUEST


def full_text(job_id: bytes) -> str:
    """Return a job's id in full: 16 hexadecimal digits, a dash, the counter."""
    return f"{job_id[:_JOURNAL].hex()}-{int.from_bytes(job_id[_JOURNAL:])}"


def short_texts(job_ids: Iterable[bytes]) -> dict[bytes, str]:
    """Return for each id the shortest text of at least 4 digits that no other journal fits."""
    ids = list(job_ids)
    digits = _digits({job_id[:_JOURNAL].hex() for job_id in ids})
    return {
        job_id: f"{job_id[:_JOURNAL].hex()[:digits]}-{int.from_bytes(job_id[_JOURNAL:])}"
        for job_id in ids
    }


def _digits(journals: set[str]) -> int:
    for digits in range(_SHORTEST, 2 * _JOURNAL):
        if len({journal[:digits] for journal in journals}) == len(journals):
            return digits
    return 2 * _JOURNAL


def parse_full(text: str) -> bytes | None:
    """Return the id that ``text`` names in full, in either form; None for anything else."""
    journal, dash, counter = text.partition("-")
    try:
        if dash:
            job_id = bytes.fromhex(journal) + int(counter).to_bytes(8)
        else:
            job_id = bytes.fromhex(text)
    except (ValueError, OverflowError):
        return None
    return job_id if len(job_id) == 2 * _JOURNAL else None


def find(text: str, known: Iterable[bytes]) -> bytes:
    """Return the one id among ``known`` that ``text`` stands for.

    Raises JobNotFound and JobAmbiguous.
    """
    fitting = sorted({job_id for job_id in known if _fits(text.lower(), job_id)})
    if not fitting:
        raise JobNotFound(f"no job {text}; `alpyne jobs --all` lists those that the nodes know")
    if len(fitting) > 1:
        shown = ", ".join(full_text(job_id) for job_id in fitting[:4])
        raise JobAmbiguous(f"job {text}: {len(fitting)} jobs fit ({shown}); give more of the id")
    return fitting[0]


def _fits(text: str, job_id: bytes) -> bool:
    journal, dash, counter = text.partition("-")
    if dash:
        return (
            bool(journal)
            and job_id[:_JOURNAL].hex().startswith(journal)
            and counter == str(int.from_bytes(job_id[_JOURNAL:]))
        )
    return bool(text) and job_id.hex().startswith(text)


def text_of(job_id: bytes, shorts: Mapping[bytes, str] | None = None) -> str:
    """Return how a job is named: short where ``shorts`` has it, else in full."""
    return (shorts or {}).get(job_id) or full_text(job_id)


def find_all(texts: Sequence[str], known: Iterable[bytes]) -> list[bytes]:
    """Return `find` of each text, in order."""
    ids = list(known)
    return [find(text, ids) for text in texts]
