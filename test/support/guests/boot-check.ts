import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { QmpClient } from '../../../src/qemu/index.ts';
import { type BootProgram, PAGE, walkOf } from './boot-sector.ts';

export interface BootState {
  /** Passes that are complete: every page has been counted up at least so often. */
  readonly passes: number;
  /** Pages of the pass under way that have been counted up, 0 to pageCount - 1. */
  readonly place: number;
}

/** First dword of each page of the program's range, from the memory of a stopped machine. `folder` takes a file for a moment. */
export async function readCounters(qmp: QmpClient, program: BootProgram, folder: string): Promise<Uint32Array> {
  const filename = join(folder, `memory-${process.pid}-${Date.now()}`);
  const counters = new Uint32Array(program.pageCount);
  try {
    await qmp.execute('pmemsave', { val: program.start, size: program.pageCount * PAGE, filename });
    const file = await open(filename);
    try {
      const chunk = Buffer.alloc(256 * PAGE);
      for (let page = 0; page < program.pageCount; page += 256) {
        const { bytesRead } = await file.read(chunk, 0, chunk.length, page * PAGE);
        for (let at = 0; at < bytesRead; at += PAGE) counters[page + at / PAGE] = chunk.readUInt32LE(at);
      }
    } finally {
      await file.close();
    }
  } finally {
    await rm(filename, { force: true });
  }
  return counters;
}

/** Where the program stands, from its counters. Throws naming the first page that no moment of the program explains. */
export function stateOf(program: BootProgram, counters: Uint32Array): BootState {
  const walk = walkOf(program);
  const at = (place: number) => counters[walk[place] ?? 0] ?? 0;
  const passes = at(program.pageCount - 1);
  let place = 0;
  while (place < program.pageCount && at(place) === passes + 1) place++;
  for (let rest = place; rest < program.pageCount; rest++) {
    if (at(rest) === passes) continue;
    const address = (program.start + (walk[rest] ?? 0) * PAGE).toString(16);
    throw new Error(
      `guest memory is wrong: page at 0x${address}, number ${rest} of the walk, holds ${at(rest)}; ` +
        `with the walk at ${place} of pass ${passes + 1} it must hold ${passes}`,
    );
  }
  return { passes, place };
}

/**
 * Letters the program has printed, by what each console saw, in the order of the moves. Throws if the row of letters is broken or if their
 * number does not fit the passes that memory shows.
 */
export function checkLetters(consoles: readonly string[], state: BootState): void {
  const letters = consoles.join('').replace(/[^A-Z]/g, '');
  for (let i = 0; i < letters.length; i++) {
    const expected = 65 + (i % 26);
    if (letters.charCodeAt(i) === expected) continue;
    throw new Error(
      `console is broken: letter ${i} is ${letters[i]}, expected ${String.fromCharCode(expected)}: ` +
        consoles.map((text) => `...${text.slice(-12)}`).join(' | '),
    );
  }
  // The letter of the last pass may be still to print, or in the serial port.
  if (letters.length !== state.passes && letters.length !== state.passes - 1) {
    throw new Error(`console shows ${letters.length} passes, memory ${state.passes}`);
  }
}
