"What all rows share: sides that take turns, peak memory in a process of its own, and claims held against the peer and the machine's own floor"
import ctypes
import gc
import resource
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from statistics import median


def seconds(f):
    "Processor seconds of one call, of all threads of this process"
    begun = time.process_time()
    f()
    return time.process_time() - begun


def turns(sides, # name -> function
          rounds, # counted rounds, after one to warm up
         ): # name -> seconds of each round
    "The sides take turns, every other round in the opposite order"
    t = {k: [] for k in sides}
    for r in range(rounds + 1):
        for k in list(sides)[::1 - r%2*2]: t[k].append(seconds(sides[k]))
    return {k: v[1:] for k, v in t.items()}


def spread(top, bottom):
    "Median, lowest and highest of the ratios within a round"
    v = [a/b for a, b in zip(top, bottom)]
    return dict(ratio=median(v), lowest=min(v), highest=max(v))


SHARE = .75 # of the machine's own floor, that a judged row must reach


def faster(what, ours, theirs, # seconds of each round
           floor=None, # the same of the work that nothing can do without; None: not measured
           target=SHARE, # share of the floor, and never slower than the peer; None: not judged
           per=1, unit='s'):
    "How many times as long the peer takes, and what share of our time the floor is"
    held = {} if floor is None else dict(floor=median(floor)/per, share=spread(floor, ours))
    return dict(what=what, kind='time', ours=median(ours)/per, theirs=median(theirs)/per, unit=unit, **spread(theirs, ours),
                **dict(floor=None, share=None) | held, target=target, better='more')


def costs(what, ours, base, target=None, per=1, unit='s', kind='time'):
    "How many times as much as the base it costs; a target is the most that may be"
    return dict(what=what, kind=kind, ours=median(ours)/per, theirs=median(base)/per, unit=unit,
                **spread(ours, base), floor=None, share=None, target=target, better='less')


def met(c):
    "Not slower than the peer, and near the floor where there is one; None where nothing is judged"
    if c['target'] is None: return None
    if c['better'] == 'less': return c['ratio'] <= c['target']
    return c['ratio'] >= 1 and (c['share'] is None or c['share']['ratio'] >= c['target'])


def agreement(what, error, tolerance):
    "Both sides give the same values, or the benchmark ends here"
    error = float(error)
    if not error <= tolerance: raise ValueError(f'{what}: off by {error:.3g}, more than {tolerance:g}')
    return dict(what=what, error=error, tolerance=tolerance)


def apart(a, b):
    "Largest difference, relative to the largest value"
    return float((a - b).abs().max()/b.abs().max())


def alone(f):
    "The result of `f` from a forked process, so that what it leaves behind ends with it"
    fork = get_context('fork')
    here, there = fork.Pipe(False)
    sys.stdout.flush()
    p = fork.Process(target=lambda: there.send(f()))
    p.start()
    there.close()
    try: out = here.recv()
    except EOFError: raise ValueError('a process of this benchmark failed: see its traceback above') from None
    finally: p.join()
    return out


def trim():
    "Give what the allocator keeps for later back to the system, or it would hide in the peak (glibc only)"
    try: ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError): pass


def peak_mb(prepare, # () -> a function without arguments, warm
           ): # MiB that calling it takes beyond what was there before
    "Peak memory of one call, in a process of its own (exact where the kernel resets its high-water mark)"
    def measured():
        f = prepare()
        gc.collect()
        trim()
        try: Path('/proc/self/clear_refs').write_text('5')
        except OSError: pass
        top = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/(2**20 if sys.platform == 'darwin' else 2**10)
        before = top()
        f()
        return max(top() - before, 2**-8) # a page at least
    return alone(measured)
