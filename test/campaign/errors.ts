import assert from 'node:assert/strict';
import { explain, FerryError } from '../../src/base/index.ts';
import type { Row } from './campaign.ts';

/** Codes of an error and its causes, outermost first. */
export function codesOf(error: unknown): string {
  const codes: string[] = [];
  for (let at: unknown = error; at instanceof Error && codes.length < 5; at = at.cause) {
    codes.push(at instanceof FerryError ? at.code : at.name);
  }
  return codes.join(' < ');
}

interface Result {
  readonly status: string;
  readonly error?: Error;
}

export function saidBy({ status, error }: Result): string {
  return status === 'completed' ? status : codesOf(error);
}

/** What both engines say in the end. */
export function bothSaid({ source, destination }: { readonly source: Result; readonly destination: Result }): Row {
  return { 'source says': saidBy(source), 'destination says': saidBy(destination) };
}

/** An error of a lost link names the channel and the byte. */
export function expectWhere(error: Error): void {
  const text = explain(error);
  assert.match(text, /\b(tcp|unix):\S+|\bmultifd \d+/, 'the error names no channel');
  assert.match(text, /(\d+ bytes|offset \d+|byte \d+)/, `the error names no byte: ${text}`);
}

/** Of bytes in the initial packet of a multifd channel: before all of it is there nobody knows the channel's number. */
export const INITIAL_PACKET_BYTES = 64;

/** One of the errors names the multifd channel that was cut. */
export function expectChannel(channel: number, cutAt: number, errors: readonly unknown[]): void {
  const name = cutAt < INITIAL_PACKET_BYTES ? /\bmultifd / : new RegExp(`\\bmultifd ${channel}\\b`);
  assert.match(errors.map(explain).join('; '), name, 'neither side names the channel');
}
