import { nowMs } from '../../base/index.ts';
import { completeBeside } from './beside.ts';
import type { RamSaver } from './ram-save.ts';
import type { SourceRun } from './run.ts';

/** Ours: QEMU sends none at this place. */
const PING_COMMIT = 0x0fe2_2f01;

/** What will confirm the guest; undefined without a return path. */
export type Confirmation = { readonly shut: Promise<void> } | undefined;

/** The guest stands: sends all that is left, passes the commit point. */
export async function switchOver(run: SourceRun, ram: RamSaver): Promise<Confirmation> {
  const { stream } = run;
  await lastHarvest(run, ram);
  await stream.switchoverStart();
  // The destination loads nothing of a device before it has read this.
  await run.links.output.flush();
  // Devices save while the last pages go.
  const beside = completeBeside(run);
  beside.catch(() => {});
  await stream.beginRam('end');
  await ram.send(Number.POSITIVE_INFINITY);
  await stream.meet();
  await stream.endRam();
  ram.complete();
  await stream.completeOthers();
  await beside;
  await stream.devices();
  await everythingLoaded(run);
  return await commit(run);
}

/** The guest stands: from its return on the pages that are dirty are known. */
export async function lastHarvest(run: SourceRun, ram: RamSaver): Promise<void> {
  const { settings, statistics, stream } = run;
  if (settings.capability('pause-before-switchover')) await run.pause();
  run.check();
  run.move('device');
  ram.rateLimit = 0;
  ram.allowXbzrle(false);
  await stream.endRound();
  await ram.sync();
  statistics.syncCount++;
}

/**
 * Stops the guest: from its return on no page becomes dirty any more. `withinMs`: a running machine whose devices would take longer runs on, and why
 * is returned.
 */
export async function stopGuest(run: SourceRun, withinMs = Number.POSITIVE_INFINITY): Promise<Error | undefined> {
  const { machine, statistics } = run;
  const from = machine.runState;
  run.stopping(from);
  statistics.stopMs = nowMs();
  if (from === 'running' && Number.isFinite(withinMs) && machine.stopWithin !== undefined) {
    const late = await machine.stopWithin('finish-migrate', withinMs);
    if (late !== undefined) {
      run.stopping(undefined);
      statistics.stopMs = undefined;
      statistics.missedStops++;
      run.check();
      return late;
    }
  } else await machine.stop('finish-migrate');
  run.stopped();
  run.check();
  return undefined;
}

/** The answer to a PING behind the last device section: with it the commit point is passed only when all is loaded over there. */
async function everythingLoaded({ links, stream, wait, check }: SourceRun): Promise<void> {
  const { returnPath, output } = links;
  if (returnPath !== undefined) {
    await stream.ping(PING_COMMIT);
    const loaded = returnPath.pong(PING_COMMIT);
    loaded.catch(() => {});
    await output.flush();
    await wait(loaded, 'loaded');
  }
  check();
}

async function commit(run: SourceRun): Promise<Confirmation> {
  const { links, stream, statistics } = run;
  statistics.progress();
  run.commit();
  links.allSent();
  const shut = links.returnPath?.shut();
  shut?.catch(() => {});
  await stream.finish();
  await links.output.drained();
  return shut && { shut };
}

/** Everything is out: waits for the destination to say that it has the guest. */
export async function handOver({ links, statistics, wait }: SourceRun, confirmation: Confirmation): Promise<void> {
  const shut = confirmation?.shut;
  if (shut !== undefined) await wait(shut, 'confirmation');
  statistics.progress();
  const ended = wait(links.end(), 'last bytes');
  // With SHUT 0 in hand the guest is safe; a file or a command, though, must end well.
  await (shut === undefined ? ended : ended.catch(() => {}));
}
