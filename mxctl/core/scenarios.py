"""Reading what is simulated: a scenario file, the trace it names, a policy beside it. Every error names the file and the line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from crds.balancepolicy import BalancePolicy, BalancePolicySpec
from crds.codec import CodecErrors, Located
from crds.document import find_problems, nearest_line
from crds.wording import what_is
from crds.yamltext import BrokenText, Parsed, parse
from mxctl.core.failures import Failure
from mxctl.core.files import read_documents, read_text
from reconciler.simulation.scenario import Scenario
from reconciler.simulation.trace import BrokenTrace
from reconciler.simulation.work import Work


@dataclass(frozen=True, slots=True)
class Given:
    """A scenario with where it came from, and the text of its trace."""

    scenario: Scenario
    source: str
    trace: str

    @property
    def name(self) -> str:
        """The scenario's."""
        return self.scenario.metadata.name

    def works(self, seed: int) -> list[Work]:
        """All that arrives. Raises CodecErrors that name a line of the trace."""
        try:
            return self.scenario.spec.works(seed, self.trace)
        except BrokenTrace as error:
            raise CodecErrors([Located(self._trace_path(), error.line, (), error.message)]) from error

    def _trace_path(self) -> str:
        trace = self.scenario.spec.trace
        return str(Path(self.source).parent / trace.file) if trace else self.source


def read_scenario(name: str) -> Given:
    """The one Scenario in this file (or "-"). Raises CodecErrors, Failure."""
    [(source, text), *more] = read_text([name])
    if more:
        raise Failure(f"{name}: is a directory; give the file of one Scenario")
    scenario = _only(text, source)
    trace = scenario.spec.trace
    if trace is None:
        return Given(scenario, source, "")
    path = Path(source).parent / trace.file
    try:
        return Given(scenario, source, path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise Failure(f"{source}: spec.trace.file: {path}: cannot be read: {error.strerror}") from error


def read_policy(name: str) -> BalancePolicySpec:
    """The one BalancePolicy in this file; other objects may be beside it."""
    found = [document.obj for document in read_documents([name])]
    policies = [one for one in found if isinstance(one, BalancePolicy)]
    if len(policies) != 1:
        raise Failure(f"{name}: has {len(policies)} BalancePolicies: give a file with one")
    return policies[0].spec


def _only(text: str, source: str) -> Scenario:
    try:
        documents = [parsed for parsed in parse(text) if parsed.data is not None]
    except BrokenText as broken:
        raise CodecErrors([Located(source, broken.line, (), str(broken))]) from broken
    if len(documents) != 1:
        raise Failure(f"{source}: has {len(documents)} documents; give a file with one Scenario")
    return _scenario(documents[0], source)


def _scenario(parsed: Parsed, source: str) -> Scenario:
    problems = [Located(source, fault.line, fault.path, fault.message) for fault in parsed.faults]
    data = parsed.data
    if not isinstance(data, dict) or data.get("kind") != "Scenario":
        what = f"its kind is {data.get('kind')!r}" if isinstance(data, dict) else f"it is {what_is(data)}"
        raise CodecErrors([Located(source, parsed.line, (), f"no Scenario: {what}; see mxctl simulate --help")])
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        found: Sequence[Located] = [
            Located(source, nearest_line(parsed.lines, problem.path, parsed.line), problem.path, problem.message)
            for problem in find_problems(error, Scenario)
        ]
        raise CodecErrors([*problems, *found]) from error
    if problems:
        raise CodecErrors(problems)
    return scenario
