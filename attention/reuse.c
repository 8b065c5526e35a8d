#include "attention/reuse.h"

bool gv_refresh_due(const struct refresh *f, int step, int last, double drift)
{
    if (last < 0 || (f->every > 0 && step - last >= f->every) || (f->drift >= 0 && drift > f->drift))
        return true;
    for (int i = 0; i < f->n_at; i++)
        if (f->at[i] == step && last != step)
            return true;
    return false;
}

bool gv_refresh_lasts(const struct refresh *f)
{
    return f->every != 1 || f->across > 1;
}

int gv_refresh_source(const struct refresh *f, int layer)
{
    return f->across > 1 ? layer / f->across * f->across : layer;
}

bool gv_history_is_read(bool kept, int pass, int steps, bool reuse_in_commit)
{
    return !kept || pass == 0 || (pass >= steps && !reuse_in_commit);
}

bool gv_dirty_is_read(int64_t changed, int64_t tau)
{
    return changed >= tau;
}
