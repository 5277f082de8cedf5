/** A device whose state is a piece of shared memory, loaded by receiving threads: `openStateLoader` as they import it. */
import type { StateLoader } from '../../src/dataplane/index.ts';

export interface LoadedMemory {
  readonly memory: SharedArrayBuffer;
  /** words[0]: bytes loaded; words[1]: loads under way; words[2]: most of them at a time; words[3]: refuse from so many bytes on, 0 = never. */
  readonly words: SharedArrayBuffer;
  /** For every load, ms. */
  readonly loadMs: number;
}

export function loadedMemory(bytes: number, loadMs = 0): LoadedMemory {
  return { memory: new SharedArrayBuffer(bytes), words: new SharedArrayBuffer(16), loadMs };
}

export function openStateLoader(data: unknown): StateLoader {
  const { memory, words: shared, loadMs } = data as LoadedMemory;
  const into = Buffer.from(memory);
  const words = new Int32Array(shared);
  return {
    load(bytes) {
      const loads = Atomics.add(words, 1, 1) + 1;
      if (loads > Atomics.load(words, 2)) Atomics.store(words, 2, loads);
      if (words[3] !== 0 && words[0]! >= words[3]!) throw new Error('the device has had enough');
      if (loadMs > 0) Atomics.wait(words, 3, words[3]!, loadMs);
      bytes.copy(into, words[0]!);
      words[0]! += bytes.length;
      Atomics.sub(words, 1, 1);
    },
  };
}
