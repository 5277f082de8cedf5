/** One end of a socket with nothing around the bytes: pieces of a packet's size from memory, or into it. */
import { workerData } from 'node:worker_threads';
import { addressOf, IoVector } from '../../src/native/index.ts';

export interface RawLink {
  readonly fd: number;
  readonly way: 'send' | 'receive';
  readonly bytes: number;
  readonly memory: SharedArrayBuffer;
}

const PIECE = 512 * 1024;

const { fd, way, bytes, memory } = workerData as RawLink;
const base = addressOf(new Uint8Array(memory));
const vector = new IoVector(1);
for (let done = 0; done < bytes; done += PIECE) {
  vector.clear();
  vector.push(base + (done % memory.byteLength), PIECE);
  while (vector.byteLength > 0) vector[way](fd);
}
