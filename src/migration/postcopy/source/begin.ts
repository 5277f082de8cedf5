/** From a precopy to a postcopy: what it wants, the preempt channels, the switchover. */
import { WAITS } from '../../../settings/index.ts';
import { unsupported } from '../../errors.ts';
import { PING_CONNECTED } from '../../return-path.ts';
import type { Dial } from '../../source/dial-all.ts';
import type { RamSaver } from '../../source/ram-save.ts';
import type { SourceRun } from '../../source/run.ts';
import { lastHarvest, stopGuest } from '../../source/switchover.ts';
import { PostcopySource } from './postcopy-source.ts';
import { connectPreempt } from './preempt-channels.ts';

/** Throws MIGRATION_UNSUPPORTED if this migration cannot become a postcopy. */
export function requirePostcopy({ links, settings, profile, machine }: SourceRun, dial: Dial | undefined): void {
  if (links.returnPath === undefined) throw unsupported('postcopy over a channel on which no destination can answer');
  const device = machine.iterables[0];
  if (device !== undefined)
    throw unsupported(`postcopy-ram with device ${device.idstr}, which would write to memory that is not there yet,`);
  if (settings.capability('postcopy-preempt') && dial === undefined)
    throw unsupported('postcopy-preempt over a single connection');
  // 8.2 to 10.0 refuse it, 7.2 dies of it at the end (qemu-wire 5.10); a machine type of 10.1 only newer ones have.
  if (settings.capability('multifd') && !profile.multifdWithPostcopy)
    throw unsupported(`multifd with postcopy-ram for ${machine.machineType} (QEMU does it from 10.1 on)`);
}

/** Machine types up to 7.2: preempt channels are made right behind the main one, which the destination takes for main as it is first. */
export async function connectPreemptEarly(run: SourceRun, dial: Dial | undefined): Promise<void> {
  if (run.profile.preemptPre72) await addPreempt(run, dial);
}

/** Stops the guest and sends all but what lets it run at the destination. A failure up to here leaves the guest to the source. */
export async function beginPostcopy(run: SourceRun, ram: RamSaver, dial: Dial | undefined): Promise<PostcopySource> {
  const { profile, links, stream } = run;
  // One that does not read (it waits for other channels) would never give the guest back; and whoever comes first is the main channel there.
  await links.output.flush();
  await run.wait(links.returnPath!.answered(), 'answer');
  if (!profile.preemptPre72) await addPreempt(run, dial);
  if (links.urgent.length > 0) await connected(run);
  await stopGuest(run);
  await lastHarvest(run, ram);
  await stream.switchoverStart();
  await stream.completeOthers();
  const postcopy = new PostcopySource(run, ram.handOver());
  await postcopy.prepare();
  return postcopy;
}

/**
 * A destination that does not want preempt channels closes them, and what was sent on them would be lost without a word. By the second answer it has
 * looked at all that had come before the first question.
 */
async function connected({ links, stream, wait, check }: SourceRun): Promise<void> {
  for (let round = 0; round < 2; round++) {
    const answered = links.returnPath!.pong(PING_CONNECTED);
    await stream.ping(PING_CONNECTED);
    await links.output.flush();
    await wait(answered, 'answer');
  }
  check();
}

async function addPreempt(
  { settings, links, preemptChannels, signal, lost, check, waitsFor }: SourceRun,
  dial: Dial | undefined,
): Promise<void> {
  if (!settings.capability('postcopy-preempt') || dial === undefined) return;
  waitsFor(WAITS.connection.what);
  await connectPreempt(links, dial, preemptChannels, signal, lost);
  waitsFor(undefined);
  check();
}
