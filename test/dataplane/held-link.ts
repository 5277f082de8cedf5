/** A link between two descriptors whose bytes wait until the test takes them from the sender, and again until it passes them on. */
import assert from 'node:assert/strict';
import { closeSync, readSync, writeSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { setBlocking } from '../../src/native/index.ts';
import { socketPair } from '../native/sockets.ts';

const DEADLINE_MS = 20_000;

export class HeldLink {
  readonly source: number;
  readonly destination: number;
  /** Bytes passed on. */
  passed = 0;
  readonly #from: number;
  readonly #to: number;
  #held = Buffer.alloc(0);

  constructor(t: TestContext) {
    [this.source, this.#from] = socketPair();
    [this.#to, this.destination] = socketPair();
    setBlocking(this.#from, false);
    setBlocking(this.#to, false);
    t.after(() => {
      closeSync(this.#from);
      closeSync(this.#to);
    });
  }

  /** Of the link's sender side: something to look at. */
  get from(): number {
    return this.#from;
  }

  async take(count: number): Promise<void> {
    const bytes = Buffer.alloc(count);
    let have = 0;
    await until(() => {
      have += moved(() => readSync(this.#from, bytes, have, count - have, null));
      return have === count;
    }, `${count} bytes from the sender`);
    this.#held = Buffer.concat([this.#held, bytes]);
  }

  /** Passes `count` of the bytes taken on. */
  async pass(count: number): Promise<void> {
    assert.ok(this.#held.length >= count);
    const bytes = this.#held.subarray(0, count);
    this.#held = this.#held.subarray(count);
    let done = 0;
    await until(() => {
      const length = moved(() => writeSync(this.#to, bytes, done, count - done));
      done += length;
      this.passed += length;
      return done === count;
    }, `${count} bytes to the receiver`);
  }

  forget(): void {
    this.#held = Buffer.alloc(0);
  }
}

/** Asks in every turn of the event loop. */
export async function until(met: () => boolean, what: string): Promise<void> {
  for (const deadline = performance.now() + DEADLINE_MS; !met(); ) {
    assert.ok(performance.now() < deadline, `still no ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function moved(move: () => number): number {
  try {
    return move();
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'EAGAIN') return 0;
    throw thrown;
  }
}
