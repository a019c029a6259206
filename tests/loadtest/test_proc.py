"""What /proc says is read right, and summed over a whole tree."""

import os
import subprocess
import sys

from loadtest import proc

STAT = "42 (a (tricky) name) S 7 42 42 0 -1 4194560 100 0 0 0 250 50 20 10 20 0 4 0 100 1000 200"


def test_stat_survives_brackets_and_spaces_in_the_name() -> None:
    stat = proc.parse_stat(STAT)
    assert (stat.pid, stat.parent) == (42, 7)
    assert (stat.cpu_seconds, stat.cpu_of_dead) == (300 * proc.SECONDS_PER_TICK, 30 * proc.SECONDS_PER_TICK)


def test_rollup_in_bytes() -> None:
    text = "55-7f ---p 0 00:00 0 [rollup]\nRss:     1792 kB\nPss:      242 kB\nPss_Dirty:  9 kB\n"
    assert proc.parse_rollup(text) == (242 * 1024, 1792 * 1024)
    assert proc.parse_rollup("") == (0, 0)


def test_descendants_are_found_below_and_only_there() -> None:
    stats = [proc.Stat(pid, parent, 0.0, 0.0) for pid, parent in ((5, 4), (1, 0), (4, 2), (2, 1), (3, 1))]
    assert {stat.pid for stat in proc.descendants(2, stats)} == {2, 4, 5}
    assert proc.descendants(99, stats) == []


def test_the_cost_of_a_real_process_counts_its_work() -> None:
    work = "import sys; sum(range(3_000_000)); print('x', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", work]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        cost = proc.tree_cost(child.pid)
        child.communicate(timeout=10)
    assert cost.cpu_seconds > 0
    assert cost.cpu_seconds % proc.SECONDS_PER_TICK > 0  # finer than the ticks of /proc
    assert 0 < cost.pss_bytes <= cost.rss_bytes


def test_a_tree_that_has_gone_costs_nothing() -> None:
    assert proc.tree_cost(2**22 + 1).rss_bytes == 0


def test_machine_says_what_it_is() -> None:
    facts = proc.machine()
    assert facts["cores"] == str(os.cpu_count())
    assert all(facts.values())
