"""onnxruntime-genai's own generate loop: for each line of stdin, measure once and print a JSON line.

usage: peer_genai.py FOLDER THREADS

A line is `{"prompts": [...], "num_tokens": N, "is_decode": B}`. A generator holds one sequence, so several
take turns, token by token, as a program that wants them side by side would do it. The answer is tokens per
second: all their tokens over the time from the first prompt on, or with `is_decode` those after each first
one over the time after that.
"""

import json
import os
import sys
import time

# Before the import, which would begin to upload.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime_genai as og


class Loop:
    """A loaded model."""

    def __init__(self, folder: str, num_threads: int) -> None:
        og.disable_telemetry_events()
        config = og.Config(folder)
        # It would spin on for 40 ms after its last token; ours costs nothing then, either.
        options = {"intra_op_num_threads": num_threads, "session.intra_op.allow_spinning": "0"}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = og.Model(config)
        self._tokenizer = og.Tokenizer(self._model)

    def start(self, prompt: str, num_tokens: int) -> og.Generator:
        """Compute the prompt and its first token."""
        tokens = self._tokenizer.encode(prompt)
        length = len(tokens) + num_tokens
        params = og.GeneratorParams(self._model)
        # No end before the last token, as `ignore_eos` has it.
        params.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = og.Generator(self._model, params)
        generator.append_tokens(tokens)
        generator.generate_next_token()
        return generator

    def measure(self, prompts: list[str], num_tokens: int, is_decode: bool) -> float:
        """Tokens per second."""
        started_s = time.perf_counter()
        generators = [self.start(prompt, num_tokens) for prompt in prompts]
        num_counted = len(prompts) * num_tokens
        if is_decode:
            started_s = time.perf_counter()
            num_counted -= len(prompts)
        for _ in range(num_tokens - 1):
            for generator in generators:
                generator.generate_next_token()
        return num_counted / (time.perf_counter() - started_s)


def main() -> None:
    loop = Loop(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        print(json.dumps(loop.measure(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
