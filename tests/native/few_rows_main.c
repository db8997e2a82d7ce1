/* Reads a file as a v1 store and as containerd's database, namespace "n", snapshotter "s"; prints what is wrong
 * with it. Compiled with few BKM_MAX_ROWS. */
#include <stdio.h>
#include <stdlib.h>

#include "plan/records.h"
#include "plan/survey.h"

int main(int count, char **arguments)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(arguments[count - 1], "rb");
    if (!file)
        return 1;
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);

    const bkm_span name_space = {(const uint8_t *)"n", 1}, snapshotter = {(const uint8_t *)"s", 1};
    bkm_bolt bolt;
    bkm_records records;
    bkm_survey survey;
    if (!bkm_bolt_open(&bolt, data, size))
        return 1;
    if (!bkm_records_read(&records, &bolt))
        puts(bkm_rule_text(bolt.rule));
    else
        bkm_records_free(&records);
    if (bkm_survey_read(&survey, &bolt, NULL, name_space, snapshotter))
        puts(bkm_rule_text(bolt.rule));
    else
        bkm_survey_free(&survey);
    bkm_bolt_close(&bolt);
    return 0;
}
