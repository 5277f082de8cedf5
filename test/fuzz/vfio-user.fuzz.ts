/**
 * Hostile bytes for the decoder of vfio-user: a direction of a captured conversation, damaged, whole and in pieces. The outcome is messages
 * and what they say, or a WireError, and the same both times.
 *
 *   node .build/.../test/fuzz/vfio-user.fuzz.js [seed] [iterations]
 */
import { STARVED } from '../../src/base/index.ts';
import { isWireError, StreamInput, vfioUser } from '../../src/wire/index.ts';
import { CONVERSATIONS, conversation } from '../support/vfio-user-captures.ts';
import { chunks } from '../wire/streams.ts';
import { copied, PAYLOAD_MAX, said } from '../wire/vfio-user/support.ts';
import { damage, generator } from './damage.ts';

/** A decoder may keep twice what came (buffers double) and this, bytes. */
const KEPT_SLACK = 64 * 1024;

/** The parts that differ: migration data and DMA make up most of a whole one. */
const SUBJECTS: readonly Buffer[] = CONVERSATIONS.flatMap((name) =>
  (['client', 'server'] as const).flatMap((from) => {
    const own = conversation(name)
      .filter((message) => message.from === from)
      .map(({ bytes }) => bytes);
    return [Buffer.concat(own.slice(0, 40)), Buffer.concat(own.slice(-40))];
  }),
);

function decodeAll(bytes: Buffer, cuts: Iterable<number>): string {
  const input = new StreamInput('fuzz');
  const outcome: string[] = [];
  for (const chunk of chunks(bytes, cuts)) {
    input.add(chunk);
    while (decodeOne(input, outcome));
    input.release();
    const kept = input.reader.bytes.length;
    if (kept > 2 * bytes.length + KEPT_SLACK) throw new Error(`${kept} bytes kept of ${bytes.length}`);
  }
  input.finish();
  if (input.reader.available > 0) decodeOne(input, outcome);
  return outcome.join('\n');
}

/** False: more bytes are wanted. */
function decodeOne(input: StreamInput, outcome: string[]): boolean {
  let message: vfioUser.Message;
  try {
    message = vfioUser.decodeMessage(input.reader, PAYLOAD_MAX);
  } catch (thrown) {
    if (thrown === STARVED) return false;
    throw thrown;
  }
  outcome.push(`${message.payload.path} ${saidBy(() => said(message))} ${featureSaid(message)}`);
  return true;
}

/** The data of a feature, read as each of its bodies. */
function featureSaid(message: vfioUser.Message): string {
  if (vfioUser.commandOfNumber(message.command) !== 'DEVICE_FEATURE' || message.error !== undefined) return '';
  return saidBy(() => {
    const { flags, data } = vfioUser.decodeRequest('DEVICE_FEATURE', message);
    const name = vfioUser.featureOfIndex(flags.index);
    if (name === undefined) return 'unknown';
    const feature = vfioUser.FEATURES[name];
    const bodies = [
      ...('get' in feature ? [feature.get.request, feature.get.reply] : []),
      ...('set' in feature ? [feature.set] : []),
    ];
    return bodies.map((body) => saidBy(() => body.read(vfioUser.payloadOf(Buffer.from(data), name), name)));
  });
}

function saidBy(read: () => unknown): string {
  try {
    return JSON.stringify(copied(read()));
  } catch (thrown) {
    if (isWireError(thrown)) return `${thrown.code} at ${thrown.fault.offset}: ${thrown.fault.path}`;
    throw thrown;
  }
}

export function fuzzVfioUser(seed: number, iterations: number): void {
  const random = generator(seed);
  for (let round = 0; round < iterations; round++) {
    const subject = random(SUBJECTS.length);
    const bytes = damage(SUBJECTS[subject]!, random);
    const step = 1 + random(random(2) === 0 ? 40 : 4000);
    const cuts = Array.from({ length: Math.ceil(bytes.length / step) }, (_, i) => i * step);
    try {
      const whole = saidBy(() => decodeAll(bytes, []));
      const pieces = saidBy(() => decodeAll(bytes, cuts));
      if (whole !== pieces) throw new Error(`whole:\n${whole}\nin pieces of ${step}:\n${pieces}`);
    } catch (error) {
      throw new Error(`seed ${seed}, round ${round} of subject ${subject}`, { cause: error });
    }
  }
}

if (process.argv[1]?.endsWith('vfio-user.fuzz.js')) {
  const seed = Number(process.argv[2] ?? Date.now() & 0x7fffffff);
  const iterations = Number(process.argv[3] ?? 20_000);
  console.log(`seed ${seed}, ${iterations} rounds`);
  const startMs = performance.now();
  fuzzVfioUser(seed, iterations);
  console.log(`no finding in ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
}
