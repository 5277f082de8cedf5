/** A CLI process under test: its JSON lines, its exit status, and a deadline on every wait. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { QmpClient } from '../../src/qemu/index.ts';

const MAIN = join(import.meta.dirname, '../../src/cli/main.js');
const DEADLINE_MS = 60_000;

/** Where the processes under test put what is temporary: gone with this process, as they are themselves. */
export const TEMPORARY = mkdtempSync(join(tmpdir(), 'vmferry-test-'));
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
  rmSync(TEMPORARY, { recursive: true, force: true });
});

/** Whoever ends what was started: a test's context, or something like it. */
export interface Owner {
  after(end: () => Promise<void>): void;
}

export interface Line {
  readonly type: string;
  readonly [member: string]: unknown;
}

export class Spawned {
  readonly lines: Line[] = [];
  stdout = '';
  stderr = '';
  /** Exit status, or the signal's name. */
  readonly exited: Promise<number | string>;
  readonly #child: ChildProcess;
  readonly #waiting = new Set<() => void>();
  #over = false;

  constructor(t: Owner, args: readonly string[]) {
    const child = spawn(process.execPath, ['--enable-source-maps', MAIN, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, TMPDIR: TEMPORARY },
    });
    this.#child = child;
    running.add(child);
    child.stderr?.on('data', (bytes: Buffer) => {
      this.stderr += bytes.toString();
    });
    createInterface({ input: child.stdout as Readable }).on('line', (text) => {
      this.stdout += `${text}\n`;
      if (args.includes('--json')) this.lines.push(JSON.parse(text) as Line);
      for (const look of this.#waiting) look();
    });
    this.exited = new Promise((resolve) => {
      child.once('close', (code, signal) => {
        this.#over = true;
        running.delete(child);
        for (const look of this.#waiting) look();
        resolve(code ?? signal ?? -1);
      });
    });
    t.after(async () => {
      child.kill('SIGKILL');
      await this.exited;
    });
  }

  /** Waits for a line that is there already or comes; fails if the process ends before, or after a minute. */
  line(matches: string | ((line: Line) => boolean)): Promise<Line> {
    const test = typeof matches === 'string' ? (line: Line) => line.type === matches : matches;
    return new Promise((resolve, reject) => {
      const settle = () => {
        clearTimeout(timer);
        this.#waiting.delete(look);
      };
      const look = () => {
        const line = this.lines.find(test);
        if (line === undefined && !this.#over) return;
        settle();
        if (line === undefined) reject(new Error(`ended without the line: ${this.stdout}${this.stderr}`));
        else resolve(line);
      };
      const timer = setTimeout(() => {
        settle();
        reject(new Error(`no such line within ${DEADLINE_MS} ms: ${this.stdout}${this.stderr}`));
      }, DEADLINE_MS);
      this.#waiting.add(look);
      look();
    });
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** The result line, once the process has ended with `status`. */
  async result(status: number): Promise<Line> {
    assert.equal(await this.exited, status, this.stdout + this.stderr);
    const results = this.lines.filter(({ type }) => type === 'result');
    assert.equal(results.length, 1, this.stdout);
    assert.equal(this.lines.at(-1), results[0], 'the result is the last line');
    return results[0] as Line;
  }
}

export async function temporaryFolder(t: Owner): Promise<string> {
  const folder = await mkdtemp(join(TEMPORARY, 't-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export const SMALL = ['--ram', '16M', '--dirty-rate', '20M'];

/** A `run` process that is ready, with its QMP socket. */
export async function startRun(t: Owner, qmp: string, ...args: readonly string[]): Promise<Spawned> {
  const run = new Spawned(t, ['run', '--json', '--qmp', qmp, ...args]);
  await run.line('ready');
  return run;
}

/** Asks a process once, over a session of its own. */
export async function ask<T = Record<string, unknown>>(
  qmp: string,
  command: string,
  args?: Record<string, unknown>,
): Promise<T> {
  const client = await QmpClient.connect(qmp);
  try {
    return (await client.executeAny(command, args)) as T;
  } finally {
    client.close();
  }
}
