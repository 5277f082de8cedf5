/**
 * A network namespace of this process alone, whose loopback the kernel shapes: a link for everybody in it, and for nobody else on the machine.
 * Only what goes to 127.0.0.2 is shaped: the other direction is a link of its own, as on a real network.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';

const INSIDE = 'VMFERRY_BENCH_OWN_NETWORK';
/** What destinations listen on: what goes there can be shaped, what they say not. */
export const DESTINATION = '127.0.0.2';
const SHAPED = `${DESTINATION}/32`;

/** Runs this program again in a network of its own, and ends with it; returns in there, or where none can be had. True: inside. */
export async function enterOwnNetwork(): Promise<boolean> {
  if (process.env[INSIDE] !== undefined) {
    run('ip', 'link', 'set', 'lo', 'up');
    return true;
  }
  const unshare = ['--net', ...(process.getuid?.() === 0 ? [] : ['--map-root-user'])];
  if (spawnSync('unshare', [...unshare, 'true']).status !== 0) return false;
  const self = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  // It becomes that program.
  const child = spawn('unshare', [...unshare, ...self], { stdio: 'inherit', env: { ...process.env, [INSIDE]: '1' } });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
  const [status] = (await once(child, 'exit')) as [number | null];
  process.exit(status ?? 1);
}

/** Bits a second that what is sent to 127.0.0.2 gets together; undefined: as fast as it goes. Throws if this kernel cannot. */
export function shape(bitsPerSecond: number | undefined): void {
  spawnSync('tc', ['qdisc', 'del', 'dev', 'lo', 'root']);
  if (bitsPerSecond === undefined) return;
  const rate = `${bitsPerSecond}bit`;
  // Tokens for some 0.2 ms, never less than what the kernel hands over at once.
  const burst = String(Math.max(64 * 1024, Math.round(bitsPerSecond / 8 / 5000)));
  run('tc', 'qdisc', 'add', 'dev', 'lo', 'root', 'handle', '1:', 'htb', 'default', '0');
  const classOf = ['parent', '1:', 'classid', '1:1', 'htb', 'rate', rate, 'burst', burst, 'cburst', burst];
  run('tc', 'class', 'add', 'dev', 'lo', ...classOf, 'quantum', '60000');
  const shaped = ['parent', '1:', 'protocol', 'ip', 'u32', 'match', 'ip', 'dst', SHAPED, 'flowid', '1:1'];
  run('tc', 'filter', 'add', 'dev', 'lo', ...shaped);
}

function run(command: string, ...args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? stderr}`);
}
