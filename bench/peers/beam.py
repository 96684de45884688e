"""A beam search with a policy and a PRM over llama.cpp's server.

The search of `offshoot bench throughput --role both --beam-width M`: N branches, steps of T tokens, after
every step the best N / M have M children. The same model serves as both. Two servers run, one a model,
each with N slots over one unified KV cache, so that what a slot has in its cache is not computed again
(`cache_prompt`). A survivor's children are one request with `n_cmpl` M: the server computes the parent
once and copies its state. The PRM reads a path up to its new step and gives one number: the
probability of its most likely next token stands for a score, as any number costs the same.
"""

from concurrent.futures import ThreadPoolExecutor
import random
import time

from server import Server


def search(policy, prm, prompt, branches, width, steps, step_tokens, pool):
    """Runs the search; tokens drawn and tokens the servers computed as prompts, of policy and PRM."""
    counts = {"drawn": 0, "policy_prompt": 0, "prm_prompt": 0}

    def grow(path, children):
        answer = policy.complete(path, step_tokens, temperature=0.7, ignore_eos=True, n_cmpl=children)
        answers = answer if isinstance(answer, list) else [answer]
        for one in answers:
            counts["drawn"] += one["tokens_predicted"]
            counts["policy_prompt"] += one["timings"]["prompt_n"]
        return [path + one["tokens"] for one in answers]

    def score(path):
        answer = prm.complete(path, 1, greedy=True, n_probs=1)
        counts["prm_prompt"] += answer["timings"]["prompt_n"]
        return answer["completion_probabilities"][0]["logprob"]

    survivors, children = [prompt], branches
    for _ in range(steps):
        paths = [path for grown in pool.map(lambda path: grow(path, children), survivors) for path in grown]
        scores = list(pool.map(score, paths))
        order = sorted(range(len(paths)), key=lambda i: (-scores[i], i))
        survivors, children = [paths[i] for i in order[: branches // width]], width
    return counts


def compare(peers, call, load):
    """The section of `run`."""
    flags = peers.flags
    branches, width, prompt = 16, 4, 128
    steps, step_tokens = (2, 4) if flags.quick else (8, 32)
    words = [peers.offshoot, "bench", "throughput", peers.model, "--role", "both", "--beam-width", width]
    words += ["--branches", branches, "--prompt", prompt, "--generate", steps * step_tokens]
    words += ["--step-tokens", step_tokens, "--repeat", flags.repeat, "--warm-up", 0, "--json"]
    words += ["--threads", flags.threads, "--device", "cpu"]
    before = load()
    ours = call(words)["rows"][0]["search"]

    tokens = random.Random(0)
    model, binary = peers.gguf("bf16"), peers.tool("llama-server")
    context = prompt + steps * step_tokens + 64
    runs = []
    with (
        Server(binary, model, flags, branches, context) as policy,
        Server(binary, model, flags, branches, context) as prm,
        ThreadPoolExecutor(branches) as pool,
    ):
        for _ in range(flags.repeat):
            # A prompt of its own, so that nothing of it is in a slot.
            text = [tokens.randrange(1000, 100_000) for _ in range(prompt)]
            theirs_before = load()
            start = time.monotonic()
            counts = search(policy, prm, text, branches, width, steps, step_tokens, pool)
            runs.append({"seconds": time.monotonic() - start, "load_before": theirs_before, **counts})
    drawn = branches * steps * step_tokens
    if any(run["drawn"] != drawn for run in runs):
        raise RuntimeError(f"llama-server drew {[run['drawn'] for run in runs]} tokens, {drawn} were asked for")
    return {
        "work": f"beam search, N = {branches}, M = {width}, {steps} steps of {step_tokens} tokens, policy and PRM, bf16",
        "offshoot": {"seconds": ours["seconds"]["median"], "load_before": before},
        "llama.cpp": {"runs": runs, "seconds": sorted(run["seconds"] for run in runs)[len(runs) // 2]},
        "note": f"peer: llama-server, n_cmpl {width}, cache_prompt, unified KV; it computed "
                f"{runs[0]['policy_prompt']} prompt tokens for the policy, {runs[0]['prm_prompt']} for the PRM "
                f"(Offshoot: {prompt} and {prompt + drawn})",
    }
