/** Conversations of vfio-user ends that are not ours (scripts/capture-vfio-user.py). */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { fixtures } from './repository.ts';

export interface CapturedMessage {
  readonly from: 'client' | 'server';
  /** Descriptors that came with it. */
  readonly fds: number;
  readonly bytes: Buffer;
}

interface Provenance {
  readonly between: string;
  readonly command: string;
  readonly messages: number;
  readonly sha256: string;
}

const FOLDER = fixtures('vfio-user');

export const VFIO_USER_PROVENANCE: Readonly<Record<string, Provenance>> = JSON.parse(
  readFileSync(join(FOLDER, 'provenance.json'), 'utf8'),
);

export const CONVERSATIONS = Object.keys(VFIO_USER_PROVENANCE).map((file) => file.replace(/\.jsonl\.gz$/, ''));

export function capturedFile(name: string): Buffer {
  return readFileSync(join(FOLDER, `${name}.jsonl.gz`));
}

export function conversation(name: string): readonly CapturedMessage[] {
  const lines = gunzipSync(capturedFile(name)).toString().trim().split('\n');
  return lines.map((line) => {
    const { from, fds, hex } = JSON.parse(line) as { from: 'client' | 'server'; fds: number; hex: string };
    return { from, fds, bytes: Buffer.from(hex, 'hex') };
  });
}
